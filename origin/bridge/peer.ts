/**
 * Owns the calls on one channel: hands them over, and settles every one exactly once.
 *
 * States: open, then closed (process, machine or connection gone, or ended by us); it never opens again. A call in flight
 * when it closes fails with `outcome_unknown`: the server may have acted. Ids are the correlator's concern, framing the
 * channel's.
 */
import { MoorageError, toMoorageError } from '../../shared/errors.ts';
import {
  isNotification,
  isRequest,
  isResponse,
  type JsonRpcMessage,
  type JsonRpcNotification,
  type JsonRpcRequest,
  type JsonRpcResponse,
  type RequestId,
} from '../../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import type { Log } from '../log.ts';
import type { Channel, ChannelEnd, OpenChannel, SendOptions } from './channel.ts';
import { type Call, type CallNumber, type Correlates, MAX_IN_FLIGHT, type Route } from './correlate.ts';

/** Where a call's messages go. Exactly one of `answer` and `fail` is called, once, and nothing after it. */
export interface CallSink {
  /** False when nobody reads any more: messages then look for another way. */
  readonly open: boolean;
  message(message: JsonRpcMessage): void;
  answer(message: JsonRpcResponse): void;
  fail(error: MoorageError): void;
}

/** Takes what a server says unasked. `starting`: it had not been called yet. */
export type Unasked = (sessions: readonly string[], message: JsonRpcMessage, starting?: boolean) => void;

export interface PeerOptions {
  readonly server: string;
  readonly open: OpenChannel;
  readonly mode: 'own' | 'shared';
  readonly correlator: Correlates;
  readonly log: Log;
  /** Makes what the server wrote durable; awaited before a tool's result is passed on. */
  readonly sync: () => Promise<void>;
  /** Of a process that was taken over: as `SessionPeer.listsChanged` was. */
  readonly listsChanged?: boolean;
  readonly unasked: Unasked;
}

export interface RequestOptions extends SendOptions {
  /** Aborting it cancels the call at the server; the sink then hears nothing more. */
  readonly signal?: AbortSignal;
}

/** What a session speaks to: a peer as it is, or a bridge to a server of the other era. */
export interface SessionPeer {
  readonly closed: Promise<void>;
  /**
   * Whether the server said that a list of its own changed after it had been called: what it lists is then no longer
   * what a fresh process would. What it says while it starts (many register tools late) is no such change.
   */
  readonly listsChanged: boolean;
  request(session: string, message: JsonRpcRequest, sink: CallSink, options?: RequestOptions): void;
  notify(session: string, message: JsonRpcMessage): void;
  /** Resolves when the server can hear. @throws MoorageError when it is gone, or its machine cannot be woken. */
  awake?(): Promise<void>;
  /** Whether it must be woken to hear; absent where it never must. */
  readonly asleep?: boolean;
  /** The session has ended. What it used alone ends with it. */
  leave(session: string): void;
}

/** Unread bytes towards a server, at most. */
const MAX_UNREAD_BYTES = 4 * MAX_MESSAGE_BYTES;
/** How long a server may still answer a call that its client cancelled, in milliseconds. Most never do. */
const CANCELLED_GRACE_MS = 5_000;
export const LIST_CHANGES = ['tools', 'prompts', 'resources'].map((kind) => `notifications/${kind}/list_changed`);
export const isListChange = ({ method }: JsonRpcNotification): boolean => LIST_CHANGES.includes(method);
/** Requests after which a server lists what it listed before. */
const UNCHANGING =
  /^(initialize|server\/discover|subscriptions\/listen|ping|logging\/setLevel|(tools|prompts|resources|resources\/templates)\/list|resources\/(un)?subscribe)$/;

export class Peer implements SessionPeer {
  readonly #options: PeerOptions;
  readonly #correlator: Correlates;
  readonly #channel: Channel;
  readonly #sinks = new Map<CallNumber, CallSink>();
  #closed: MoorageError | undefined;
  #called = false;
  #listsChanged: boolean;
  /** Resolves when the channel has closed. */
  readonly closed: Promise<void>;

  constructor(options: PeerOptions) {
    this.#options = options;
    this.#correlator = options.correlator;
    this.#listsChanged = options.listsChanged ?? false;
    this.#channel = options.open({
      message: (message, via) => {
        try {
          this.#heard(message, via);
        } catch (thrown) {
          this.#mishandled(message, thrown);
        }
      },
      lost: (id, error) => this.#lost(id, error),
    });
    this.closed = this.#channel.closed.then((end) => this.#close(end));
  }

  get inFlight(): number {
    return this.#correlator.inFlight;
  }

  get sessions(): ReadonlySet<string> {
    return this.#correlator.sessions;
  }

  get mode(): 'own' | 'shared' {
    return this.#options.mode;
  }

  get listsChanged(): boolean {
    return this.#listsChanged;
  }

  attach(session: string): void {
    this.#correlator.attach(session);
  }

  /** A session of a shared process gives up its calls and subscriptions; a process of its own is ended. */
  leave(session: string): void {
    for (const message of this.#correlator.detach(session)) this.#channel.send(message);
    if (this.mode === 'own') void this.end();
  }

  /** A client's request. The sink is settled exactly once, also when the process is gone already. */
  request(session: string, message: JsonRpcRequest, sink: CallSink, options: RequestOptions = {}): void {
    const refusal = this.#refusal();
    if (refusal) {
      sink.fail(refusal);
      return;
    }
    if (options.signal?.aborted) return;
    if (!UNCHANGING.test(message.method)) this.#called = true;
    const { call, message: renumbered } = this.#correlator.request(session, message);
    this.#sinks.set(call.number, sink);
    options.signal?.addEventListener('abort', () => this.#cancel(call), { once: true });
    this.#channel.send(renumbered, options);
  }

  /** A request of the agent itself, such as a replayed `initialize`. @throws MoorageError when the process is gone. */
  ask(session: string, message: JsonRpcRequest, options: RequestOptions = {}): Promise<JsonRpcResponse> {
    return asked(this, session, message, options);
  }

  /** A client's notification, or its answer to a question of the server. Dropped when it concerns nothing here. */
  notify(session: string, message: JsonRpcMessage): void {
    if (isRequest(message)) throw new TypeError('A request needs a sink: use request().');
    if (isResponse(message)) {
      const answer = this.#correlator.answer(message);
      if (answer) this.#channel.send(answer);
      return;
    }
    for (const notification of this.#correlator.notification(session, message)) {
      this.#channel.send(notification);
      if (notification.method === 'notifications/cancelled') this.#forgetSoon(notification);
    }
  }

  /** Says `notifications/initialized` in the clients' name (MCP, basic/lifecycle). */
  announceInitialized(): void {
    this.#channel.send({ jsonrpc: '2.0', method: 'notifications/initialized' });
  }

  /** Ends the channel, and with it the server's process where it is ours. Resolves when it is gone. */
  async end(): Promise<void> {
    await this.#channel.end();
    await this.closed;
  }

  get asleep(): boolean {
    return this.#channel.asleep ?? false;
  }

  /** Resolves when the server can hear. @throws MoorageError when it is gone, or its machine cannot be woken. */
  async awake(): Promise<void> {
    await this.#channel.awake?.();
    if (this.#closed) throw this.#closed;
  }

  /** We go, and nobody will hear the calls in flight; a process that outlives us stays. */
  async letGo(): Promise<void> {
    if (this.#channel.outlives) this.#close({ what: 'The origin was stopped', data: { cause: 'origin_stopped' } });
    else await this.end();
  }

  #refusal(): MoorageError | undefined {
    if (this.#closed) return this.#closed;
    const { server } = this.#options;
    if (this.#correlator.inFlight >= MAX_IN_FLIGHT) {
      return new MoorageError(
        'overloaded',
        `The server "${server}" has ${MAX_IN_FLIGHT} calls in flight. Try again in a moment.`,
      );
    }
    if (this.#channel.unread > MAX_UNREAD_BYTES) {
      return new MoorageError('overloaded', `The server "${server}" does not read its input. Try again in a moment.`);
    }
    return undefined;
  }

  #cancel(call: Call): void {
    const notice = this.#correlator.cancel(call.number);
    this.#sinks.delete(call.number);
    if (notice && !this.#channel.abandon(call.number)) this.#channel.send(notice);
  }

  /** A cancelled call is mostly never answered (basic/utilities/cancellation): it must not count as in flight for ever. */
  #forgetSoon(notification: JsonRpcNotification): void {
    const number = notification.params?.requestId as CallNumber;
    const sink = this.#sinks.get(number);
    setTimeout(() => {
      if (!sink || this.#sinks.get(number) !== sink) return;
      this.#correlator.cancel(number);
      this.#sinks.delete(number);
      this.#channel.abandon(number);
      sink.fail(
        new MoorageError('outcome_unknown', 'The call was cancelled by its client and not answered by the server.', {
          cause: 'cancelled',
          retryable: false,
        }),
      );
    }, CANCELLED_GRACE_MS).unref();
  }

  #heard(message: JsonRpcMessage, via?: CallNumber): void {
    if (this.#called && isNotification(message) && isListChange(message)) this.#listsChanged = true;
    this.#route(this.#correlator.fromServer(message, via));
  }

  /** A fault of ours, which what a server says has found, must cost no other server anything. */
  #mishandled(message: JsonRpcMessage, thrown: unknown): void {
    const why = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
    this.#options.log.error(`server ${this.#options.server}: a message could not be handled: ${why}`);
    if (isResponse(message) && message.id !== null) this.#lost(message.id, toMoorageError(thrown));
  }

  #lost(id: RequestId, error: MoorageError): void {
    const route = this.#correlator.fromServer({ jsonrpc: '2.0', id, error: { code: -32603, message: error.message } });
    if (route.to === 'answer') this.#take(route.call)?.fail(error);
  }

  #route(route: Route): void {
    switch (route.to) {
      case 'answer':
        void this.#settle(route.call, route.message);
        return;
      case 'call': {
        const sink = this.#sinks.get(route.call.number);
        if (sink?.open) sink.message(route.message);
        else this.#options.unasked([route.call.session], route.message);
        return;
      }
      case 'sessions':
        this.#options.unasked(route.sessions, route.message, !this.#called);
        return;
      case 'server':
        this.#channel.send(route.message);
        return;
      case 'nobody':
        this.#options.log.debug(`server ${this.#options.server}: a message was dropped: ${route.reason}`);
        return;
    }
  }

  /** A tool's result is passed on only when what it wrote would survive the loss of the machine. */
  async #settle(call: Call, message: JsonRpcResponse): Promise<void> {
    const sink = this.#take(call);
    if (!sink) return;
    if (call.method === 'tools/call') {
      try {
        await this.#options.sync();
      } catch {
        sink.fail(lostAfterAnswer(this.#options.server));
        return;
      }
    }
    sink.answer(message);
  }

  #take(call: Call): CallSink | undefined {
    const sink = this.#sinks.get(call.number);
    this.#sinks.delete(call.number);
    return sink;
  }

  #close({ what, data }: ChannelEnd): void {
    this.#closed = new MoorageError('session_unknown', `${what}.`);
    for (const call of this.#correlator.abandon()) {
      this.#take(call)?.fail(
        new MoorageError(
          'outcome_unknown',
          `${what} while "${call.method}" was running. Outcome unknown: check before you repeat it.`,
          { ...data, retryable: false },
        ),
      );
    }
  }
}

/** A request of the agent itself, by whatever a session speaks to. @throws MoorageError. */
export function asked(
  peer: SessionPeer,
  session: string,
  message: JsonRpcRequest,
  options: RequestOptions = {},
): Promise<JsonRpcResponse> {
  return new Promise((resolve, reject) => {
    peer.request(session, message, { open: false, message: () => undefined, answer: resolve, fail: reject }, options);
  });
}

function lostAfterAnswer(server: string): MoorageError {
  return new MoorageError(
    'outcome_unknown',
    `The machine of server "${server}" was lost just after it answered. Outcome unknown: what it wrote may be gone. Check before you repeat it.`,
    { cause: 'machine_gone', retryable: false },
  );
}
