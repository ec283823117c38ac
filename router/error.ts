/** Owns why a router cannot be started: expected failures with a stable code, each told so that its reader can act. */

export type RouterErrorCode =
  /** Somebody else uses the state folder. */
  | 'state_in_use'
  /** What lies in the state folder cannot be used. */
  | 'state_damaged'
  /** This host cannot run microVMs and the caller did not allow another way. */
  | 'host_unfit'
  /** An address of the configuration cannot be listened at. */
  | 'address_unusable'
  /** This origin was not enrolled anywhere. */
  | 'not_enrolled'
  /** A code that is none, or of another edge. */
  | 'bad_code'
  | 'edge_away'
  /** Something in front of the edge lets nobody through without a login. */
  | 'edge_refused'
  /** What answers at the edge's address is something else. */
  | 'no_edge'
  /** `MOORAGE_EDGE_ACCESS` or `MOORAGE_ORIGIN_ACCESS` cannot be read. */
  | 'bad_access'
  /** An origin whose configuration has no server for it. */
  | 'nothing_to_serve'
  /** The second step of a change of keys without the first. */
  | 'unprepared';

export class RouterError extends Error {
  override readonly name = 'RouterError';
  readonly code: RouterErrorCode;

  constructor(code: RouterErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
