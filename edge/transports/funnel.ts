/**
 * Owns one event stream into which many answers flow: whole messages, in the order in which they come.
 *
 * Invariants: events of answers keep nothing but their data (an id would let a client resume a stream that is not this
 * one); a comment every `KEEP_ALIVE_MS` shows that the stream lives; a client that does not read is cut, not buffered for.
 */
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS, MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import { dataOf, eventOf, SseScanner } from '../sse.ts';

/** Bytes that may wait for a client to read them. */
const MAX_UNREAD_BYTES = 2 * MAX_MESSAGE_BYTES;

export class Funnel {
  readonly body: ReadableStream<Uint8Array>;
  /** Settles when the stream has ended, by either side. */
  readonly ended: Promise<void>;
  readonly #end: () => void;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  readonly #timer: ReturnType<typeof setInterval>;
  /** What is being read, to be let go when the client leaves. */
  readonly #readers = new Set<ReadableStreamDefaultReader<Uint8Array>>();

  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#end = resolve;
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        cancel: () => this.#stop(),
      },
      { highWaterMark: MAX_UNREAD_BYTES, size: (chunk) => chunk.byteLength },
    );
    this.#timer = setInterval(() => this.write(KEEP_ALIVE_LINE), KEEP_ALIVE_MS);
  }

  /** Writes whole events, or comments. */
  write(events: string | Uint8Array): void {
    const controller = this.#controller;
    if (!controller) return;
    controller.enqueue(typeof events === 'string' ? new TextEncoder().encode(events) : events);
    if ((controller.desiredSize ?? 0) > 0) return;
    controller.error(new Error('the client does not read its stream'));
    this.#stop();
  }

  /** Writes every message of an answer; resolves at the answer's end. */
  async pour(answer: Response): Promise<void> {
    if (!answer.body) return;
    if (!answer.headers.get('content-type')?.startsWith('text/event-stream')) {
      this.write(eventOf(await answer.text()));
      return;
    }
    const reader = answer.body.getReader();
    const scanner = new SseScanner();
    this.#readers.add(reader);
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        for (const event of scanner.push(part.value)) {
          const data = dataOf(event);
          if (data) this.write(eventOf(data));
        }
        if (!this.#controller || scanner.held > 2 * MAX_MESSAGE_BYTES) return await reader.cancel();
      }
    } finally {
      this.#readers.delete(reader);
    }
  }

  close(): void {
    this.#controller?.close();
    this.#stop();
  }

  #stop(): void {
    if (!this.#controller) return;
    this.#controller = undefined;
    clearInterval(this.#timer);
    for (const reader of this.#readers) reader.cancel().catch(() => undefined);
    this.#end();
  }
}
