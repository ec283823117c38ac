/**
 * Owns the HTTP interface that an origin's agent offers to the edge (through the tunnel, over its Unix socket).
 *
 * | Request | Body | Answers |
 * |---|---|---|
 * | `POST /v1/messages` | one JSON-RPC message of the client, as it came | `200 application/json` (the response), `200 text/event-stream` (messages as `data:` lines, the response last), `202` (notification or response taken) |
 * | `GET /v1/streams/<stream>?after=<n>` | – | `200 text/event-stream` (the events after the nth, then what follows until the response), `204` (there are none and will be none) |
 * | `DELETE /v1/session` | – | `204`; the session's process is ended; unknown sessions too |
 *
 * Every request carries `Authorization: Bearer <grant>`. Failures are `{ error: { code, message, data } }` (`ErrorBody`).
 * `session_unknown` (409) means: the agent holds no process for this session; restore it, then repeat the message.
 * To restore is to send, with `Moorage-Replay: 1`, a JSON array: the session's `initialize`, then the requests that bring
 * a fresh process to where the session stands. It is answered `200 application/json` with the server's response to that
 * `initialize` once the process has answered all of them; nobody's message passes them, and however many restore the
 * same session at once, each request reaches the process once.
 * With `Moorage-Wake: no` a request, of either era, is also `session_unknown` where its process sleeps: it is not worth waking it.
 * A `subscriptions/listen` with it is acknowledged there as it stands, and reaches the process when a request has it run next.
 * `route_stale` (409) means: this server or machine is not at this origin; ask the Directory again.
 * `stream_unknown` (404) means: no such stream of this session is kept here (any more).
 * Closing the connection never cancels a call (a disconnect is no cancellation before 2026-07-28).
 *
 * A stream that answers a request of an open session is kept in the agent's journal. Its events have ids of kind `origin`
 * (`event-stream.ts`), and can be asked for again within bounds (`origin/journal/bounds.ts`), also after the agent was
 * started anew. `Moorage-Revision` is the session's revision: from 2025-11-25 on the first event has an id and no data.
 * `Moorage-Prefer: stream` asks for a stream where a quick answer would be JSON.
 *
 * An answer that is the agent's own failure, such as `outcome_unknown` for a process that died, is marked where no server
 * can write: by the header `Moorage-Failure: <code>` on JSON, by the event name `moorage-failure` in a stream. An answer of a process that has changed its own lists since it was first called has `Moorage-Lists: changed`.
 *
 * With `Moorage-Era: modern` the message is a request of the stateless era (2026-07-28) as the client sent it, envelope in
 * `_meta` included, and the answer is in that era's form. The grant's session is then a *lane*: the stable key of
 * principal and server, by which a stateful server behind the stateless protocol finds its state. A lane needs no
 * `initialize` and is `session_unknown` only with `Moorage-Wake: no`. Closing the connection cancels the request (2026-07-28, "Cancellation").
 * The edge has checked envelope and headers; `Mcp-Param-*` headers come along as they were sent. An answer that is a
 * JSON-RPC error is still `200` here. `modernStatus` (`rev-2026-07-28.ts`) says which status the client gets. Answers to
 * discovery have no hints about caching where their server gives none: the edge completes them.
 */

export const MESSAGES_PATH = '/v1/messages';
export const SESSION_PATH = '/v1/session';
/** Followed by the stream's name. */
export const STREAMS_PATH = '/v1/streams/';

/** The revision that the session negotiated. */
export const REVISION_HEADER = 'moorage-revision';
/** Set to `stream` for a client that would rather have an event stream than JSON. */
export const PREFER_HEADER = 'moorage-prefer';

/** Set to `1` on the requests that the edge repeats for a session that the client already opened. */
export const REPLAY_HEADER = 'moorage-replay';

/** Set to `no` on a request that only a process that is awake shall answer. */
export const WAKE_HEADER = 'moorage-wake';

/** The most requests that restore one session. */
export const MAX_REPLAYED = 300;

/** Names the code of a failure that is the agent's and not the server's. */
export const FAILURE_HEADER = 'moorage-failure';
/** Name of the event that carries such a failure. Clients never see it: the edge passes it on as `message`. */
export const FAILURE_EVENT = 'moorage-failure';

/** `changed` when the lists of the process that answers are its own affair: other sessions may see others. */
export const LISTS_HEADER = 'moorage-lists';

/** Set to `modern` on requests of the era without sessions. */
export const ERA_HEADER = 'moorage-era';

/** The largest message in either direction, in bytes (10 MB payloads cross, with room for the envelope). */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** A comment line is written on every open stream this often, in milliseconds: proxies cut at about 100 s of silence. */
export const KEEP_ALIVE_MS = 15_000;
export const KEEP_ALIVE_LINE = ': keep-alive\n\n';
