/**
 * Owns the events of resumable streams (MCP 2025-03-26 to 2025-11-25, basic/transports, "Resumability and Redelivery"):
 * their ids, their text, and the delay after which a client comes back.
 *
 * An id is `<kind>.<stream>.<n>`: where the stream is kept, its name there, and the event's place in it (0: before the
 * first). It says where to look and proves nothing: whoever asks must hold the session that the stream belongs to.
 */

/** `origin`: a call's stream, in the agent's journal. `edge`: a call's, of an edge server. `session`: the session's own (GET). */
export type StreamKind = 'origin' | 'edge' | 'session';

export interface EventId {
  readonly kind: StreamKind;
  readonly stream: string;
  readonly n: number;
}

const LETTER: Readonly<Record<StreamKind, string>> = { origin: 'o', edge: 'e', session: 's' };
const ID = /^([oes])\.([A-Za-z0-9_-]{8,32})\.(0|[1-9][0-9]{0,14})$/;

/**
 * A client comes back this long after its stream was cut, in milliseconds. SDK clients give up after two failed attempts,
 * so twice this is the outage that a stream survives, and once this is what a cut costs.
 */
export const RETRY_MS = 3_000;
/** The same where a stream was ended on purpose: everything is up, and the client is expected. */
export const RETRY_AT_ONCE_MS = 500;

export function formatEventId({ kind, stream, n }: EventId): string {
  return `${LETTER[kind]}.${stream}.${n}`;
}

/** Undefined for what is no id of ours. */
export function parseEventId(text: string): EventId | undefined {
  const [, letter, stream, n] = ID.exec(text) ?? [];
  const kind = (['origin', 'edge', 'session'] as const).find((name) => LETTER[name] === letter);
  return kind && stream !== undefined ? { kind, stream, n: Number(n) } : undefined;
}

/** A message as one event. `data` is JSON text, without line breaks. */
export function eventText(id: string, data: string, name = 'message'): string {
  return `id: ${id}\nevent: ${name}\ndata: ${data}\n\n`;
}

/** An event that only says where a client is and when it may come back. For revisions that `takesPriming` alone. */
export function primingText(id: string, retryMs = RETRY_MS): string {
  return `id: ${id}\nretry: ${retryMs}\ndata: \n\n`;
}
