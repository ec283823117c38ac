/**
 * Owns what passes between one stdio client and its server behind a router: every message, either way, as it is.
 *
 * Invariants: a request gets one answer, or none when the client cancelled it; it is sent again only where it certainly
 * did not arrive; nothing overtakes an initialize or a notification before it; a message that claims the era without
 * sessions (2026-07-28) is carried outside of any.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { MoorageError } from '../../shared/errors.ts';
import {
  failure,
  isRequest,
  isResponse,
  type JsonRpcMessage,
  type JsonRpcNotification,
  type JsonRpcRequest,
  type JsonRpcResponse,
  type RequestId,
} from '../../shared/jsonrpc.ts';
import { ParameterHeaders } from '../../shared/parameter-headers.ts';
import { REVISION_META_KEY } from '../../shared/revision.ts';
import { failedAnswer } from './explain.ts';
import { type Failure, failureOf, type Remote, reasonOf } from './remote.ts';
import { Session, type SessionOptions } from './session.ts';

export interface RelayOptions extends Pick<SessionOptions, 'server' | 'locate' | 'headers' | 'log'> {
  /** Takes what is for the client. */
  readonly toClient: (message: JsonRpcMessage) => void;
}

/** A request of the client, until it is answered. */
interface Call {
  readonly request: JsonRpcRequest;
  /** It claims the era without sessions. */
  readonly stateless: boolean;
  readonly abort: AbortController;
  readonly settled: PromiseWithResolvers<void>;
  /** The client waits for no answer any more. */
  cancelled: boolean;
}

/** A router that does not take connections is tried again after these pauses, in milliseconds: it may be starting. */
const PAUSES = [100, 300, 600, 1_000, 2_000];

export class Relay {
  readonly #options: RelayOptions;
  readonly #session: Session;
  readonly #parameters = new ParameterHeaders();
  readonly #calls = new Map<RequestId, Call>();
  /** Questions of the server that the client has not answered, and where they came from. */
  readonly #asked = new Map<RequestId, Remote>();
  /** What must be over before the next message leaves. Never rejects. */
  #turn: Promise<void> = Promise.resolve();
  #ended = false;

  constructor(options: RelayOptions) {
    this.#options = options;
    this.#session = new Session({
      ...options,
      onMessage: (remote, message) => this.#fromServer(remote, message),
      onLost: (remote) => this.#withdrawQuestions(remote),
    });
  }

  /** Takes one message of the client. Never throws. */
  receive(message: JsonRpcMessage): void {
    if (isResponse(message)) this.#answered(message);
    else if (isRequest(message)) this.#requested(message);
    else if (message.method === 'notifications/cancelled') this.#cancel(message);
    else this.#afterTurn(() => this.#tell(message));
  }

  /** Resolves when every request that was received is answered. */
  async idle(): Promise<void> {
    await this.#turn;
    while (this.#calls.size > 0) await Promise.all([...this.#calls.values()].map(({ settled }) => settled.promise));
  }

  /** Ends the session at the router. Nothing is sent to the client any more. */
  async end(): Promise<void> {
    this.#ended = true;
    for (const call of this.#calls.values()) {
      call.abort.abort();
      call.settled.resolve();
    }
    await this.#session.end();
  }

  #afterTurn(act: () => Promise<void>): void {
    this.#turn = this.#turn.then(act);
  }

  #requested(request: JsonRpcRequest): void {
    const meta = request.params?._meta;
    const call: Call = {
      request,
      stateless: meta !== null && typeof meta === 'object' && REVISION_META_KEY in meta,
      abort: new AbortController(),
      settled: Promise.withResolvers(),
      cancelled: false,
    };
    this.#calls.set(request.id, call);
    this.#session.remember(request);
    const sent = this.#turn.then(() => this.#call(call));
    if (request.method === 'initialize') this.#turn = sent.then(() => call.settled.promise);
  }

  #cancel(notification: JsonRpcNotification): void {
    const call = this.#calls.get(notification.params?.requestId as RequestId);
    if (call) call.cancelled = true;
    if (call?.stateless) {
      // There, the end of the exchange is the cancellation (2026-07-28, basic/transports).
      this.#settle(call);
      call.abort.abort();
    } else this.#afterTurn(() => this.#tell(notification));
  }

  #answered(answer: JsonRpcResponse): void {
    const asker = answer.id === null ? undefined : this.#asked.get(answer.id);
    if (answer.id === null || !asker) {
      this.#options.log('the client answered a question that is not open: dropped');
      return;
    }
    this.#asked.delete(answer.id);
    this.#afterTurn(() => this.#tell(answer, asker));
  }

  /** A notification or an answer. One that does not arrive is lost: nobody waits for it. */
  async #tell(message: JsonRpcNotification | JsonRpcResponse, asker?: Remote): Promise<void> {
    const what = 'method' in message ? message.method : 'an answer';
    try {
      const remote = asker ?? (await this.#session.current());
      await remote.send(message);
      if (what === 'notifications/initialized') remote.listen();
    } catch (error) {
      this.#options.log(`${what} was not delivered: ${reasonOf(error)}`);
    }
  }

  /** Sends a request until it has arrived or cannot. */
  async #call(call: Call): Promise<void> {
    const { request, abort } = call;
    const pauses = PAUSES.values();
    for (let renewed = false; this.#isOpen(call); ) {
      let remote: Remote | undefined;
      let failed: Failure;
      try {
        remote = await this.#remoteFor(call);
        const headers = call.stateless ? this.#parameters.of(request) : {};
        await remote.send(request, { signal: abort.signal, headers, onEnd: () => this.#cutOff(call) });
        return;
      } catch (error) {
        if (error instanceof MoorageError) return this.#respond(call, failure(request.id, error));
        failed = failureOf(error, remote?.session !== undefined);
      }
      if (failed.kind === 'lost' && !renewed) {
        renewed = true;
        if (remote) this.#session.lose(remote);
        continue;
      }
      const pause = failed.kind === 'unsent' ? pauses.next().value : undefined;
      if (pause === undefined) return this.#respond(call, failedAnswer(request, failed));
      await delay(pause);
    }
  }

  #remoteFor({ request, stateless }: Call): Promise<Remote> {
    if (stateless) return this.#session.outside();
    return request.method === 'initialize' ? this.#session.fresh() : this.#session.current();
  }

  #fromServer(remote: Remote, message: JsonRpcMessage): void {
    if (this.#ended) return;
    if (!isResponse(message)) {
      if (isRequest(message)) this.#asked.set(message.id, remote);
      this.#options.toClient(message);
      return;
    }
    const call = message.id === null ? undefined : this.#calls.get(message.id);
    if (!call) {
      this.#options.log('an answer came for no open request: dropped');
      return;
    }
    if (call.request.method === 'initialize' && 'result' in message) {
      this.#session.opened(remote, call.request, String(message.result.protocolVersion));
    }
    if (call.stateless && call.request.method === 'tools/list' && 'result' in message) {
      this.#parameters.learn(message.result);
    }
    this.#respond(call, message);
  }

  /** The stream of a call's answers ended; the answer was on it or never comes. */
  #cutOff(call: Call): void {
    if (!this.#isOpen(call)) return;
    if (call.cancelled) this.#settle(call);
    else this.#respond(call, failedAnswer(call.request, { kind: 'broken', reason: 'its stream ended' }));
  }

  #respond(call: Call, answer: JsonRpcResponse): void {
    if (!this.#isOpen(call)) return;
    this.#settle(call);
    this.#options.toClient(answer);
  }

  #settle(call: Call): void {
    this.#calls.delete(call.request.id);
    call.settled.resolve();
  }

  #isOpen(call: Call): boolean {
    return !this.#ended && this.#calls.get(call.request.id) === call;
  }

  #withdrawQuestions(remote: Remote): void {
    for (const [requestId, asker] of this.#asked) {
      if (asker !== remote) continue;
      this.#asked.delete(requestId);
      const params = { requestId, reason: 'the session in which this was asked is gone' };
      this.#options.toClient({ jsonrpc: '2.0', method: 'notifications/cancelled', params });
    }
  }
}
