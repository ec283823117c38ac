/**
 * Owns an origin's event stream on its way to the client: it passes events byte for byte, goes on where a broken connection
 * to the origin left off, and sees to it that no client waits for ever.
 *
 *   carrying ──connection broke, last id known──▶ reattaching ──found──▶ carrying
 *      │                                              └──given up──▶ ended (with a failure of ours, where one can be said)
 *      ├──response passed, stream ended──▶ ended
 *      └──silent for long, if so configured──▶ ended (the client comes back for the rest)
 *
 * Invariants: only whole events pass, and each once; the response passes at most once; a client that leaves cancels nothing.
 */
import { type EventId, parseEventId, primingText, RETRY_AT_ONCE_MS } from '../../shared/event-stream.ts';
import type { JsonRpcMessage, RequestId } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS, MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import { eventOf, idOf, isAnswer, messageOf, type PassedEvent, SseScanner } from '../sse.ts';

type Bytes = ReadableStream<Uint8Array>;

export interface RelayOptions {
  /** Id of the request that the stream answers; absent where only the origin knows it. */
  readonly request?: RequestId | undefined;
  /** Called with the response before the client sees it. */
  readonly onAnswer?: ((answer: JsonRpcMessage) => Promise<void>) | undefined;
  /** The same stream after an event; undefined when it cannot be had (any more). Absent where streams have no ids. */
  readonly reattach?: ((at: EventId) => Promise<Bytes | undefined>) | undefined;
  /** What is said in place of a response that will not come; undefined to end without a word. */
  readonly giveUp: (reason: 'broken' | 'too-large') => Promise<JsonRpcMessage | undefined>;
  /** End after this long without a message, in milliseconds: for clients that come back. */
  readonly endIdleAfterMs?: number | undefined;
}

/** Connections to the origin that may break during one exchange with a client. */
const MAX_REATTACHED = 100;

export function relay(body: Bytes, options: RelayOptions): Bytes {
  const running = new Relay(body, options);
  return new ReadableStream<Uint8Array>({
    start: (controller) => running.start(controller),
    pull: () => running.pull(),
    cancel: (reason) => running.cancel(reason),
  });
}

class Relay {
  readonly #options: RelayOptions;
  #reader: ReadableStreamDefaultReader<Uint8Array>;
  #scanner = new SseScanner();
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #lastId: string | undefined;
  #answered = false;
  #left = false;
  #reattached = 0;
  #idleSince = Date.now();

  constructor(body: Bytes, options: RelayOptions) {
    this.#options = options;
    this.#reader = body.getReader();
  }

  start(controller: ReadableStreamDefaultController<Uint8Array>): void {
    this.#controller = controller;
  }

  /** Carries until at least one event has passed, or the end. */
  async pull(): Promise<void> {
    for (;;) {
      const part = await this.#read();
      if (part === 'idle') return await this.#endIdle();
      if (part === undefined) {
        if (this.#answered || !(await this.#goOn())) return await this.#end('broken');
        continue;
      }
      const events = this.#scanner.push(part);
      for (const event of events) await this.#pass(event);
      if (this.#scanner.held > 2 * MAX_MESSAGE_BYTES) {
        await this.#reader.cancel();
        return await this.#end('too-large');
      }
      if (events.length > 0) return;
    }
  }

  async cancel(reason: unknown): Promise<void> {
    this.#left = true;
    await this.#reader.cancel(reason);
  }

  /** The next bytes; undefined at the end, however it came. */
  async #read(): Promise<Uint8Array | 'idle' | undefined> {
    const read = this.#reader.read().then(
      ({ value }) => value as Uint8Array | undefined,
      () => undefined,
    );
    const { endIdleAfterMs } = this.#options;
    if (endIdleAfterMs === undefined || this.#lastId === undefined || this.#answered) return await read;
    let timer: ReturnType<typeof setTimeout> | null = null;
    const idle = new Promise<'idle'>((resolve) => {
      timer = setTimeout(() => resolve('idle'), Math.max(0, this.#idleSince + endIdleAfterMs - Date.now()));
    });
    try {
      return await Promise.race([read, idle]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #pass(event: PassedEvent): Promise<void> {
    this.#lastId = idOf(event) ?? this.#lastId;
    if (!this.#answered && isAnswer(event, this.#options.request)) {
      this.#answered = true;
      const answer = this.#options.onAnswer && messageOf(event);
      if (answer) await this.#options.onAnswer?.(answer);
    }
    if (!isComment(event)) this.#idleSince = Date.now();
    for (const bytes of event.parts) this.#controller?.enqueue(bytes);
  }

  /** Finds the stream again at the origin. False when it cannot be had. */
  async #goOn(): Promise<boolean> {
    const at = this.#lastId === undefined ? undefined : parseEventId(this.#lastId);
    if (!at || !this.#options.reattach || this.#left || ++this.#reattached > MAX_REATTACHED) return false;
    const alive = setInterval(() => this.#write(KEEP_ALIVE_LINE), KEEP_ALIVE_MS);
    try {
      const body = await this.#options.reattach(at);
      if (!body) return false;
      if (this.#left) {
        await body.cancel();
        return false;
      }
      this.#reader = body.getReader();
      this.#scanner = new SseScanner();
      this.#idleSince = Date.now();
      return true;
    } finally {
      clearInterval(alive);
    }
  }

  async #end(reason: 'broken' | 'too-large'): Promise<void> {
    if (this.#left) return;
    if (!this.#answered) {
      const answer = await this.#options.giveUp(reason);
      if (answer) {
        await this.#options.onAnswer?.(answer);
        this.#controller?.enqueue(eventOf(answer));
      }
    }
    this.#controller?.close();
  }

  async #endIdle(): Promise<void> {
    this.#write(primingText(this.#lastId ?? '', RETRY_AT_ONCE_MS));
    this.#controller?.close();
    await this.#reader.cancel();
  }

  #write(text: string): void {
    if (!this.#left) this.#controller?.enqueue(new TextEncoder().encode(text));
  }
}

const COLON = 58;
const isComment = (event: PassedEvent): boolean => event.parts[0]?.[0] === COLON;
