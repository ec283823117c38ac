/**
 * Owns the HTTP interface that an origin's agent offers to the edge (through the tunnel, over its Unix socket).
 *
 * | Request | Body | Answers |
 * |---|---|---|
 * | `POST /v1/messages` | one JSON-RPC message of the client, as it came | `200 application/json` (the response), `200 text/event-stream` (messages as `data:` lines, the response last), `202` (notification or response taken) |
 * | `DELETE /v1/session` | – | `204`; the session's process is ended; unknown sessions too |
 *
 * Every request carries `Authorization: Bearer <grant>`. Failures are `{ error: { code, message, data } }` (`ErrorBody`).
 * `session_unknown` (409) means: the agent holds no process for this session; send the session's `initialize` again
 * with `Moorage-Replay: 1` (answered 204 when the server is ready), then repeat the message.
 * `route_stale` (409) means: this server or machine is not at this origin; ask the Directory again.
 * Closing the connection never cancels a call (a disconnect is no cancellation before 2026-07-28).
 */

export const MESSAGES_PATH = '/v1/messages';
export const SESSION_PATH = '/v1/session';

/** Set to `1` on an `initialize` that the edge repeats for a session that the client already opened. */
export const REPLAY_HEADER = 'moorage-replay';

/** The largest message in either direction, in bytes (10 MB payloads cross, with room for the envelope). */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** A comment line is written on every open stream this often, in milliseconds: proxies cut at about 100 s of silence. */
export const KEEP_ALIVE_MS = 15_000;
export const KEEP_ALIVE_LINE = ': keep-alive\n\n';
