/**
 * Owns how a message for an edge server is answered: right here, without an origin.
 *
 * A request gets an instance of its own. Its answer is JSON when the first thing that the server says is the response
 * and comes soon, else an event stream. What the client says in the middle of the call arrives in another POST, maybe in
 * another isolate, and reaches this one through a mailbox at the Session object, which is opened only for calls that
 * stream. Their events are written down there before they go out, so that a client which lost its connection can come back
 * for the rest; while it is away the call goes on as far as the platform lets it.
 */
import { MoorageError, toMoorageError } from '../../shared/errors.ts';
import { eventText, formatEventId, primingText, RETRY_AT_ONCE_MS } from '../../shared/event-stream.ts';
import { failure, isRequest, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS } from '../../shared/origin-api.ts';
import { takesPriming } from '../../shared/revision.ts';
import type { Env } from '../env.ts';
import { randomName } from '../random.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { sessionOf } from '../session/object.ts';
import type { Restore } from '../session/session.ts';
import { joinCall } from '../session/stream.ts';
import { eventOf } from '../sse.ts';
import { callOf, type EdgeServerContext, type EdgeServerFactory, Instance } from './instance.ts';

/** A call that says nothing for this long begins its stream: the client and proxies see that it lives. */
const QUICK_MS = 200;
/** The longest that a call may take, in milliseconds. */
const CALL_WITHIN_MS = 10 * 60 * 1000;
/** Bytes that may wait for a client to read them. */
const MAX_UNREAD_BYTES = 32 * 1024 * 1024;
/** What concerns the session rather than the call: it goes to the client's own stream (GET), where there is one. */
const OF_THE_SESSION = /^notifications\/(\w+\/list_changed|resources\/updated)$/;

export interface EdgeCall {
  readonly env: Env;
  readonly factory: EdgeServerFactory;
  readonly context: EdgeServerContext;
  readonly restore: Restore;
  /** As negotiated; null for initialize. */
  readonly revision: string | null;
  readonly message: JsonRpcMessage;
  /** The client would rather have an event stream than JSON. */
  readonly preferStream: boolean;
  /** A stream is ended after this long without a message, in milliseconds: the client comes back for the rest. */
  readonly endIdleAfterMs: number | undefined;
  /** Called with the response to the request before the client sees it. */
  readonly onAnswer?: (answer: JsonRpcMessage) => Promise<void>;
  readonly waitUntil: (promise: Promise<unknown>) => void;
}

/** Answers one message. @throws MoorageError. */
export async function answerAtEdge(call: EdgeCall): Promise<Response> {
  const { env, context, message } = call;
  if (isRequest(message)) return await answerRequest(call, message);
  const target = targetOf(message);
  // Anything else has no call to reach: an instance lives as long as its call.
  if (target) await sessionOf(env, context.session).deliver(context.session, JSON.stringify(message), target.call);
  return new Response(null, { status: 202 });
}

/** Which running call a notification or response is for; `call: null` means all of the session. */
function targetOf(message: JsonRpcMessage): { readonly call: string | null } | null {
  if (isResponse(message)) return named(callOf(message.id));
  if (message.method === 'notifications/progress') return named(callOf(message.params?.progressToken));
  return message.method === 'notifications/cancelled' ? { call: null } : null;
}

const named = (call: string | null): { readonly call: string } | null => (call === null ? null : { call });

async function answerRequest(call: EdgeCall, request: JsonRpcRequest): Promise<Response> {
  const { factory, context, restore } = call;
  const key = randomName();
  const instance = await Instance.create(factory, context, key);
  try {
    if (request.method !== 'initialize') await instance.restore(restore);
  } catch (thrown) {
    await instance.close();
    throw thrown;
  }
  return await new RunningCall(call, request, instance, key).start();
}

const encoder = new TextEncoder();

/** One request while its instance works on it. */
class RunningCall {
  readonly #call: EdgeCall;
  readonly #request: JsonRpcRequest;
  readonly #instance: Instance;
  readonly #key: string;
  /** Settles the POST's answer: with the response as JSON, or with the stream. */
  readonly #answer = Promise.withResolvers<Response>();
  /** Undefined before the stream begins, and after its client has left. */
  #stream: ReadableStreamDefaultController<Uint8Array> | undefined;
  #streaming = false;
  #mailbox: WebSocket | undefined;
  /** Place of the newest event of the stream. */
  #last = 0;
  #idle: ReturnType<typeof setTimeout> | null = null;
  #timers: ReturnType<typeof setTimeout>[] = [];
  #done = false;
  readonly #over = Promise.withResolvers<void>();
  /** Whatever is said follows what was said before, though opening the mailbox takes a moment. */
  #tail: Promise<void> = Promise.resolve();

  constructor(call: EdgeCall, request: JsonRpcRequest, instance: Instance, key: string) {
    this.#call = call;
    this.#request = request;
    this.#instance = instance;
    this.#key = key;
  }

  start(): Promise<Response> {
    this.#timers.push(
      setTimeout(() => this.#then(() => this.#openStream()), this.#call.preferStream ? 0 : QUICK_MS),
      setTimeout(
        () => this.#fail(new MoorageError('request_timeout', 'The edge server took too long.')),
        CALL_WITHIN_MS,
      ),
    );
    this.#instance.feed(this.#request, (message, related) => this.#then(() => this.#say(message, related)));
    return this.#answer.promise;
  }

  #then(next: () => Promise<void>): void {
    this.#tail = this.#tail.then(next).catch((thrown: unknown) => this.#fail(toMoorageError(thrown)));
  }

  async #say(message: JsonRpcMessage, related: boolean): Promise<void> {
    if (this.#done) return;
    if (isResponse(message) && message.id === this.#request.id) {
      await this.#call.onAnswer?.(message);
      if (this.#call.preferStream) await this.#openStream();
      if (this.#streaming) await this.#event(message);
      else this.#answer.resolve(Response.json(message));
      return this.#finish();
    }
    if (!related && 'method' in message && OF_THE_SESSION.test(message.method)) {
      const { env, context } = this.#call;
      return await sessionOf(env, context.session).publish([context.session], JSON.stringify(message), null);
    }
    await this.#openStream();
    await this.#event(message);
  }

  /** One event: written down, then sent. */
  async #event(message: JsonRpcMessage): Promise<void> {
    if (!this.#mailbox) return this.#write(eventOf(message));
    const { env, context } = this.#call;
    const [n, text] = [++this.#last, JSON.stringify(message)];
    const kind = isResponse(message) ? 'last' : isRequest(message) ? 'kept' : 'droppable';
    await sessionOf(env, context.session).recordCall(context.session, this.#key, n, text, kind);
    this.#write(encoder.encode(eventText(this.#eventId(), text)));
    this.#expectMore();
  }

  #eventId(): string {
    return formatEventId({ kind: 'edge', stream: this.#key, n: this.#last });
  }

  /** Where it is so configured, a stream that says nothing is ended: its client comes back for the rest. */
  #expectMore(): void {
    const { endIdleAfterMs: after } = this.#call;
    if (after === undefined) return;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      this.#write(encoder.encode(primingText(this.#eventId(), RETRY_AT_ONCE_MS)));
      this.#stream?.close();
      this.#stream = undefined;
    }, after);
  }

  /** Begins the event stream, and opens the mailbox first: an answer must find it when the client has the question. */
  async #openStream(): Promise<void> {
    if (this.#streaming || this.#done) return;
    this.#streaming = true;
    const { env, context, waitUntil } = this.#call;
    // A session that is not open yet (initialize) has no mailbox, and nobody who could write to it.
    if (this.#request.method !== 'initialize') {
      const joined = await joinCall(env, context.session, context.principal, this.#key, this.#request.id);
      if (joined instanceof Response) throw new MoorageError('session_not_found', 'The session has ended.');
      this.#mailbox = joined;
      joined.addEventListener('message', ({ data }) => this.#hear(data));
    }
    const body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#stream = controller;
        },
        // The client's leaving is no cancellation: the call goes on to its end, as far as the runtime lets it.
        cancel: () => {
          this.#stream = undefined;
        },
      },
      { highWaterMark: MAX_UNREAD_BYTES, size: (chunk) => chunk.byteLength },
    );
    this.#timers.push(setInterval(() => this.#write(encoder.encode(KEEP_ALIVE_LINE)), KEEP_ALIVE_MS));
    const primed = this.#mailbox && takesPriming(this.#call.revision);
    this.#write(encoder.encode(primed ? primingText(this.#eventId()) : ': open\n\n'));
    if (primed) this.#expectMore();
    waitUntil(this.#over.promise);
    this.#answer.resolve(new Response(body, { headers: STREAM_HEADERS }));
  }

  /** What the client says while the call runs. */
  #hear(data: unknown): void {
    if (typeof data !== 'string' || this.#done) return;
    const message = JSON.parse(data) as JsonRpcMessage;
    const cancels = 'method' in message && message.method === 'notifications/cancelled';
    // Every call of the session hears of a cancellation, and only one is meant.
    if (cancels && message.params?.requestId !== this.#request.id) return;
    this.#instance.tell(message);
    // A cancelled call gets no response (MCP, basic/utilities/cancellation).
    if (cancels) this.#finish();
  }

  #write(bytes: Uint8Array): void {
    if (this.#done || !this.#stream) return;
    this.#stream.enqueue(bytes);
    if ((this.#stream.desiredSize ?? 0) <= 0) {
      this.#stream.error(new Error('the client does not read its stream'));
      this.#stream = undefined;
    }
  }

  #fail(error: MoorageError): void {
    if (this.#done) return;
    if (!this.#streaming) {
      this.#answer.reject(error);
      this.#finish();
      return;
    }
    this.#tail = this.#tail
      .then(() => (this.#done ? undefined : this.#event(failure(this.#request.id, error))))
      .catch((thrown: unknown) => console.error('a failure of a call was not written down', thrown))
      .finally(() => this.#finish());
  }

  #finish(): void {
    if (this.#done) return;
    this.#done = true;
    for (const timer of this.#timers) clearTimeout(timer);
    clearTimeout(this.#idle);
    this.#stream?.close();
    this.#mailbox?.close(1000, 'the call is over');
    this.#over.resolve();
    this.#call.waitUntil(
      this.#instance.close().catch((thrown: unknown) => console.error('an edge server did not close', thrown)),
    );
  }
}
