/**
 * Owns one HTTP response that carries a resumable stream: from an event on, to the response or to its reader's leaving.
 *
 * Invariants: events leave in order, each once; what the reader has not taken yet waits in the journal, not in memory; a
 * comment every `KEEP_ALIVE_MS` keeps proxies from cutting a slow call. Losing the connection changes nothing for the call.
 */
import type { ServerResponse } from 'node:http';
import { eventText, formatEventId, primingText } from '../../shared/event-stream.ts';
import { FAILURE_EVENT, KEEP_ALIVE_LINE, KEEP_ALIVE_MS } from '../../shared/origin-api.ts';
import type { StoredEvent } from './database.ts';
import type { Stream, StreamReader } from './stream.ts';

export const STREAM_HEADERS = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
} as const;

export interface ConnectionOptions {
  /** The reader has this event and what was before it; 0 for none. */
  readonly after: number;
  /** Whether the reader takes an event without data: it then knows its place from the first byte. */
  readonly primed: boolean;
}

export class Connection implements StreamReader {
  readonly #response: ServerResponse;
  readonly #stream: Stream;
  readonly #timer: NodeJS.Timeout;
  #at: number;
  /** Whether the socket took what it was given; else the rest follows when it drains. */
  #ready = true;
  #named: boolean;

  /** Begins the answer: headers and a first byte leave at once. */
  constructor(response: ServerResponse, stream: Stream, { after, primed }: ConnectionOptions) {
    this.#response = response;
    this.#stream = stream;
    this.#at = after;
    this.#named = primed;
    this.#timer = setInterval(() => {
      // A reader that does not read may keep an ended response from closing.
      if (this.open) response.write(KEEP_ALIVE_LINE);
    }, KEEP_ALIVE_MS);
    response.writeHead(200, STREAM_HEADERS);
    response.write(primed ? primingText(this.#id(after)) : KEEP_ALIVE_LINE);
    response.on('drain', () => this.#resume());
    response.once('close', () => {
      clearInterval(this.#timer);
      stream.leave(this);
    });
    stream.join(this);
    this.#resume();
  }

  get open(): boolean {
    return !this.#response.destroyed && !this.#response.writableEnded;
  }

  /** Whether the reader was told an id, by which it can come back. */
  get named(): boolean {
    return this.#named;
  }

  grew(event: StoredEvent): void {
    if (!this.#ready || !this.open) return;
    this.#write(event);
    this.#finish();
  }

  replaced(): void {
    this.#response.end();
  }

  /** Sends what is kept and was not sent. */
  #resume(): void {
    this.#ready = true;
    while (this.#ready && this.open) {
      const event = this.#stream.after(this.#at);
      if (!event) break;
      this.#write(event);
    }
    this.#finish();
  }

  #write({ n, data, failed }: StoredEvent): void {
    this.#at = n;
    this.#named = true;
    this.#ready = this.#response.write(eventText(this.#id(n), data, failed ? FAILURE_EVENT : 'message'));
  }

  /** Nothing follows once the stream has ended and all that is kept of it was written. */
  #finish(): void {
    if (this.#ready && this.#stream.ended && this.open) this.#response.end();
  }

  #id(n: number): string {
    return formatEventId({ kind: 'origin', stream: this.#stream.id, n });
  }
}
