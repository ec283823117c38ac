/**
 * Owns an origin's event stream on its way to the client: it passes events byte for byte, goes on where a broken connection
 * to the origin left off, and sees to it that no client waits for ever.
 *
 *   carrying ──connection broke, last id known──▶ reattaching ──found──▶ carrying
 *      │                                              └──given up──▶ begun anew, or ended (with a failure of ours)
 *      ├──the agent says that the call was lost──▶ begun anew, or ended (with a failure of ours)
 *      ├──response passed, stream ended──▶ ended
 *      └──silent for long, if so configured──▶ ended (the client comes back for the rest)
 *
 * Invariants: only whole events pass, and each once; the response passes at most once; a client that leaves cancels
 * nothing; a call is begun anew once at most, and only while its client has seen no message of it. A failure of the agent
 * (`FAILURE_EVENT`) reaches the client as a plain message.
 */
import { type EventId, eventText, parseEventId, primingText, RETRY_AT_ONCE_MS } from '../../shared/event-stream.ts';
import type { JsonRpcFailure, JsonRpcMessage, RequestId } from '../../shared/jsonrpc.ts';
import { FAILURE_EVENT, KEEP_ALIVE_LINE, KEEP_ALIVE_MS, MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import type { Loss } from '../loss.ts';
import { dataOf, eventName, eventOf, idOf, isAnswer, messageOf, type PassedEvent, SseScanner } from '../sse.ts';

type Bytes = ReadableStream<Uint8Array>;

export interface RelayOptions {
  /** Id of the request that the stream answers; absent where only the origin knows it. */
  readonly request?: RequestId | undefined;
  /** Called with the response before the client sees it. */
  readonly onAnswer?: ((answer: JsonRpcMessage) => Promise<void>) | undefined;
  /** The response as the client is told it; the same object where it is as it came. For streams whose events have no ids. */
  readonly told?: ((answer: JsonRpcMessage) => JsonRpcMessage) | undefined;
  /** The same stream after an event; undefined when it cannot be had (any more). Absent where streams have no ids. */
  readonly reattach?: ((at: EventId) => Promise<Bytes | undefined>) | undefined;
  /** What comes in place of a call that was lost before its client saw anything: a stream or the answer; else undefined. */
  readonly beginAnew?: ((loss: Loss) => Promise<Bytes | JsonRpcMessage | undefined>) | undefined;
  /** What is said in place of a response that will not come; undefined to end without a word of ours. */
  readonly giveUp: (why: Loss | 'too-large') => Promise<JsonRpcMessage | undefined>;
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
  /** No message has passed: comments and places are no messages. */
  #untouched = true;

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
        const loss = { unsent: false, failure: null };
        if (this.#answered) return await this.#end(loss);
        if (!(await this.#goOn()) && !(await this.#beginAnew(loss))) return await this.#end(loss);
        continue;
      }
      const events = this.#scanner.push(part);
      const failed = events.findIndex((event) => eventName(event) === FAILURE_EVENT);
      for (const event of failed === -1 ? events : events.slice(0, failed)) await this.#pass(event);
      if (failed !== -1) {
        if (await this.#failed(events[failed] as PassedEvent)) continue;
        if (!this.#left) this.#controller?.close();
        return;
      }
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
    let { parts } = event;
    if (!this.#answered && isAnswer(event, this.#options.request)) {
      this.#answered = true;
      const { onAnswer, told } = this.#options;
      const answer = (onAnswer || told) && messageOf(event);
      if (answer) await onAnswer?.(answer);
      const instead = answer && told?.(answer);
      if (instead && instead !== answer) parts = [eventOf(instead)];
    }
    if (this.#untouched && (this.#answered || dataOf(event))) this.#untouched = false;
    if (!isComment(event)) this.#idleSince = Date.now();
    for (const bytes of parts) this.#controller?.enqueue(bytes);
  }

  /** The agent's own last word. True when the call goes on all the same. */
  async #failed(event: PassedEvent): Promise<boolean> {
    const said = messageOf(event) as JsonRpcFailure | undefined;
    await this.#reader.cancel().catch(() => undefined);
    if (!said || this.#answered) return false;
    const isLoss = (said.error.data as { code?: unknown } | undefined)?.code === 'outcome_unknown';
    const loss = { unsent: false, failure: said };
    if (isLoss && (await this.#beginAnew(loss))) return true;
    this.#answered = true;
    const answer = (isLoss && (await this.#options.giveUp(loss))) || said;
    await this.#options.onAnswer?.(answer);
    const id = idOf(event);
    if (id === undefined) this.#controller?.enqueue(eventOf(answer));
    else this.#write(eventText(id, JSON.stringify(answer)));
    return false;
  }

  /** True when there is another stream to carry, or its answer has passed. */
  async #beginAnew(loss: Loss): Promise<boolean> {
    if (!this.#options.beginAnew || !this.#untouched || this.#left) return false;
    const instead = await this.#alive(this.#options.beginAnew(loss));
    if (!instead) return false;
    this.#untouched = false;
    if (instead instanceof ReadableStream) {
      this.#carry(instead);
      return true;
    }
    this.#answered = true;
    this.#controller?.enqueue(eventOf(instead));
    return true;
  }

  #carry(body: Bytes): void {
    this.#reader = body.getReader();
    this.#scanner = new SseScanner();
    this.#idleSince = Date.now();
  }

  /** The client and its proxies see that the call lives while something else is waited for. */
  async #alive<T>(promise: Promise<T>): Promise<T> {
    const timer = setInterval(() => this.#write(KEEP_ALIVE_LINE), KEEP_ALIVE_MS);
    try {
      return await promise;
    } finally {
      clearInterval(timer);
    }
  }

  /** Finds the stream again at the origin. False when it cannot be had. */
  async #goOn(): Promise<boolean> {
    const at = this.#lastId === undefined ? undefined : parseEventId(this.#lastId);
    if (!at || !this.#options.reattach || this.#left || ++this.#reattached > MAX_REATTACHED) return false;
    const body = await this.#alive(this.#options.reattach(at));
    if (!body) return false;
    if (this.#left) {
      await body.cancel();
      return false;
    }
    this.#carry(body);
    return true;
  }

  async #end(why: Loss | 'too-large'): Promise<void> {
    if (this.#left) return;
    if (!this.#answered) {
      const answer = await this.#options.giveUp(why);
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
