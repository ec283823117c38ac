/**
 * Owns Server-Sent Events as MCP uses them: how a message becomes an event, and where events end in passing bytes.
 *
 * Invariant: a scanner hands on whole events only, byte for byte, so that a stream which breaks in the middle of an
 * event can still be ended with one of ours.
 */
import { parseExactly } from '../shared/exact-json.ts';
import { isResponse, type JsonRpcMessage, type RequestId } from '../shared/jsonrpc.ts';

const encoder = new TextEncoder();
const LF = 10;
const CR = 13;
/** Events larger than this are not parsed only to learn what they are. */
const SMALL_EVENT_BYTES = 64 * 1024;
const HEAD_BYTES = 512;

/** A message as one event. */
export function eventOf(message: JsonRpcMessage | string): Uint8Array {
  return encoder.encode(`event: message\ndata: ${typeof message === 'string' ? message : JSON.stringify(message)}\n\n`);
}

/** A whole event as it passed, including its empty line. */
export interface PassedEvent {
  readonly parts: readonly Uint8Array[];
  readonly bytes: number;
}

/** Finds the ends of events in chunks of any cut. One scanner per stream. */
export class SseScanner {
  /** Bytes of an event that has begun and not ended. */
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  /** Length of the line at hand so far, and its last byte. */
  #line = 0;
  #last = 0;

  /** Bytes held back because their event has not ended: the caller bounds them. */
  get held(): number {
    return this.#heldBytes;
  }

  /** The events that end within `chunk`. */
  push(chunk: Uint8Array): PassedEvent[] {
    const events: PassedEvent[] = [];
    let begin = 0;
    let from = 0;
    for (let at = chunk.indexOf(LF); at !== -1; at = chunk.indexOf(LF, from)) {
      const length = this.#line + (at - from);
      const last = at > from ? chunk[at - 1] : this.#last;
      if (length === 0 || (length === 1 && last === CR)) {
        const tail = chunk.subarray(begin, at + 1);
        events.push({ parts: [...this.#held, tail], bytes: this.#heldBytes + tail.byteLength });
        this.#held = [];
        this.#heldBytes = 0;
        begin = at + 1;
      }
      this.#line = 0;
      from = at + 1;
    }
    const rest = chunk.subarray(begin);
    if (rest.byteLength > 0) {
      this.#held.push(rest);
      this.#heldBytes += rest.byteLength;
    }
    this.#line += chunk.byteLength - from;
    this.#last = chunk.at(-1) ?? this.#last;
    return events;
  }
}

/** The `data` of an event (WHATWG HTML, 9.2.6), or undefined for a comment. */
export function dataOf(event: PassedEvent): string | undefined {
  const decoder = new TextDecoder();
  const text = event.parts.map((part) => decoder.decode(part, { stream: true })).join('') + decoder.decode();
  const data = text
    .split(/\r?\n/)
    .filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(line.startsWith('data: ') ? 6 : 5));
  return data.length > 0 ? data.join('\n') : undefined;
}

/** The id of an event that begins with one, as ours do. */
export function idOf(event: PassedEvent): string | undefined {
  const head = event.parts.map((part) => new TextDecoder().decode(part.subarray(0, HEAD_BYTES))).join('');
  return /^id: ?([!-~]+)\r?\n/.exec(head)?.[1];
}

/** The name of an event; `message` where it has none. A message is JSON on lines of `data`, so it cannot name itself. */
export function eventName(event: PassedEvent): string {
  const decoder = new TextDecoder();
  let head = '';
  for (const part of event.parts) {
    head += decoder.decode(part.subarray(0, HEAD_BYTES - head.length), { stream: true });
    if (head.length >= HEAD_BYTES) break;
  }
  return /^event: ?(\S+)\r?$/m.exec(head)?.[1] ?? 'message';
}

/**
 * Whether an event carries the response to request `id`, or to any where the id is not known (a stream answers one request).
 *
 * A large event without a `method` near its start is taken for the response unparsed: requests and notifications name
 * their method before anything large, and parsing megabytes only to look at one member would cost more than carrying them.
 */
export function isAnswer(event: PassedEvent, id: RequestId | undefined): boolean {
  if (event.bytes > SMALL_EVENT_BYTES) {
    const head = event.parts.map((part) => new TextDecoder().decode(part.subarray(0, HEAD_BYTES))).join('');
    if (!head.slice(0, HEAD_BYTES).includes('"method"')) return true;
  }
  const message = messageOf(event);
  return message !== undefined && isResponse(message) && (id === undefined || message.id === id);
}

/** The message in an event of a trusted stream, or undefined when there is none. */
export function messageOf(event: PassedEvent): JsonRpcMessage | undefined {
  const data = dataOf(event);
  if (!data) return undefined;
  try {
    const value: unknown = parseExactly(data);
    return value !== null && typeof value === 'object' ? (value as JsonRpcMessage) : undefined;
  } catch {
    // Not JSON: whatever it is, it is not a message, and it passes on as it came.
    return undefined;
  }
}
