/**
 * Owns how much the journal keeps, and for how long. The rest of the journal only obeys.
 *
 * What gives way, in this order: within a stream its oldest notifications (progress, log lines: a later one says the same),
 * never its questions and never its response; beyond that, the oldest streams that have ended.
 */

/** Events of one stream, without its response. */
export const STREAM_ROOM = { messages: 1_000, bytes: 8 * 1024 * 1024 } as const;
/** Bytes of one session's streams that have ended. */
export const SESSION_BYTES = 64 * 1024 * 1024;
/** Streams, and bytes of their events, of all sessions together. */
export const TOTAL_STREAMS = 20_000;
export const TOTAL_BYTES = 512 * 1024 * 1024;
/** A stream that has ended is kept this long, in milliseconds: a client that comes at all comes within seconds. */
export const KEPT_MS = 15 * 60 * 1000;
/** How often the journal looks for what is too old. */
export const SWEEP_EVERY_MS = 60 * 1000;

export interface EndedStream {
  readonly id: string;
  readonly session: string;
  readonly bytes: number;
  /** When it ended, in milliseconds. */
  readonly endedAt: number;
}

/** Once a total is reached, this share of it remains: giving way costs less in one go. */
const REMAINING = 0.9;

/** Which ended streams are given up. `streams` are all of them; `total` counts those still running as well. */
export function givenUp(
  streams: readonly EndedStream[],
  total: { readonly streams: number; readonly bytes: number },
  now: number,
): string[] {
  const out = new Set<string>();
  let { streams: count, bytes } = total;
  const drop = (stream: EndedStream) => {
    out.add(stream.id);
    count--;
    bytes -= stream.bytes;
  };
  const newestFirst = [...streams].sort((a, b) => b.endedAt - a.endedAt);
  const perSession = new Map<string, number>();
  for (const stream of newestFirst) {
    const held = (perSession.get(stream.session) ?? 0) + stream.bytes;
    if (stream.endedAt + KEPT_MS <= now || held > SESSION_BYTES) drop(stream);
    else perSession.set(stream.session, held);
  }
  if (count <= TOTAL_STREAMS && bytes <= TOTAL_BYTES) return [...out];
  for (const stream of newestFirst.toReversed()) {
    if (count <= TOTAL_STREAMS * REMAINING && bytes <= TOTAL_BYTES * REMAINING) break;
    if (!out.has(stream.id)) drop(stream);
  }
  return [...out];
}
