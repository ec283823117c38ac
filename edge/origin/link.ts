/**
 * Owns what an event's number decides on the link. Pure.
 *
 * Events count 1, 2, 3 … within an epoch (a start of the agent). An event at or below the last one that reached its
 * sessions is a repeat: acknowledged, not delivered. A new epoch begins at 0.
 */

/** Where a link stands. `seq` is the last event that was delivered. */
export interface LinkPosition {
  readonly epoch: string;
  readonly seq: number;
}

/** The position after `hello`. */
export function positionAt(hello: { readonly epoch: string }, position: LinkPosition | undefined): LinkPosition {
  return position?.epoch === hello.epoch ? position : { epoch: hello.epoch, seq: 0 };
}

/** Whether an event must be delivered. A gap is no error: the agent may have dropped events beyond its bounds. */
export const isNew = (seq: number, position: LinkPosition): boolean => seq > position.seq;
