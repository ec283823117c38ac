/**
 * Owns the ids of one server process: which message of the server belongs to which call of which session. Pure, no I/O.
 *
 * A process speaks one id space; its clients each have their own. So every request that goes in gets a number of ours
 * (its *call*), every question that the server asks gets a name of ours, and both are translated back on the way out.
 * Progress tokens are translated likewise.
 *
 * Two modes:
 * - `own`: the process belongs to one session; the server may ask that session's client (sampling, elicitation, roots).
 * - `shared`: several sessions use the process. Over stdio a question cannot be attributed to a call, so none is let
 *   through: it is answered "method not found" (the process was told that its client can do nothing). Logging is passed
 *   on only while exactly one call is in flight; what a server says to everyone goes to every session, and
 *   `resources/updated` only to sessions that subscribed.
 *
 * Invariants: a call is settled at most once; a result never reaches another call than its own; an answer to a question
 * that was not asked (or was answered) goes nowhere.
 */
import {
  isNotification,
  isRequest,
  type JsonRpcMessage,
  type JsonRpcNotification,
  type JsonRpcRequest,
  type JsonRpcResponse,
  nameFrom,
  numberFrom,
  type ProgressToken,
  progressTokenOf,
  type RequestId,
} from '../../shared/jsonrpc.ts';
import { cancellations, renumbered } from './renumber.ts';

/** Number of a call within its process: 1, 2, 3 … */
export type CallNumber = number;

export interface Call {
  readonly number: CallNumber;
  readonly session: string;
  readonly clientId: RequestId;
  readonly method: string;
  readonly progressToken: ProgressToken | undefined;
  /** URI of a `resources/subscribe` or `unsubscribe`. */
  readonly uri: string | undefined;
}

/** Where a message of the server goes. */
export type Route =
  | { readonly to: 'answer'; readonly call: Call; readonly message: JsonRpcResponse }
  /** On the stream of a call in flight; `unasked` when that stream is gone. */
  | { readonly to: 'call'; readonly call: Call; readonly message: JsonRpcMessage }
  /** To sessions that did not ask: their GET streams. */
  | { readonly to: 'sessions'; readonly sessions: readonly string[]; readonly message: JsonRpcMessage }
  /** Back into the server at once. */
  | { readonly to: 'server'; readonly message: JsonRpcMessage }
  | { readonly to: 'nobody'; readonly reason: string };

interface Question {
  readonly serverId: RequestId;
  readonly call: CallNumber | undefined;
}

/** What decides where messages of one channel go: `Correlator` here, `ModernCorrelator` for the era without sessions. */
export interface Correlates {
  readonly inFlight: number;
  readonly sessions: ReadonlySet<string>;
  attach(session: string): void;
  detach(session: string): JsonRpcMessage[];
  request(session: string, message: JsonRpcRequest): { call: Call; message: JsonRpcRequest };
  notification(session: string, message: JsonRpcNotification): JsonRpcNotification[];
  answer(message: JsonRpcResponse): JsonRpcResponse | undefined;
  fromServer(message: JsonRpcMessage, via?: CallNumber): Route;
  cancel(number: CallNumber): JsonRpcNotification | undefined;
  abandon(): Call[];
}

/** What a correlator knows besides calls in flight, JSON-safe: kept while its process sleeps. */
export interface CorrelatorState {
  readonly nonce: string;
  readonly lastCall: number;
  readonly lastQuestion: number;
  readonly sessions: readonly string[];
  readonly questions: readonly (readonly [name: string, serverId: RequestId])[];
  readonly subscribers: readonly (readonly [uri: string, sessions: readonly string[]])[];
}

/** Calls in flight in one process, at most. */
export const MAX_IN_FLIGHT = 2_000;
const MAX_QUESTIONS = 1_000;

export class Correlator implements Correlates {
  readonly #mode: 'own' | 'shared';
  /** Part of every question's name, so that an answer meant for an earlier process finds nothing here. */
  readonly #nonce: string;
  readonly #calls = new Map<CallNumber, Call>();
  readonly #questions = new Map<string, Question>();
  readonly #subscribers = new Map<string, Set<string>>();
  readonly #sessions = new Set<string>();
  #lastCall = 0;
  #lastQuestion = 0;

  constructor(mode: 'own' | 'shared', nonce: string) {
    this.#mode = mode;
    this.#nonce = nonce;
  }

  /** The correlator of a process that slept through a restart of ours. */
  static from(mode: 'own' | 'shared', state: CorrelatorState): Correlator {
    const correlator = new Correlator(mode, state.nonce);
    correlator.#lastCall = state.lastCall;
    correlator.#lastQuestion = state.lastQuestion;
    for (const session of state.sessions) correlator.#sessions.add(session);
    for (const [name, serverId] of state.questions) correlator.#questions.set(name, { serverId, call: undefined });
    for (const [uri, sessions] of state.subscribers) correlator.#subscribers.set(uri, new Set(sessions));
    return correlator;
  }

  get state(): CorrelatorState {
    return {
      nonce: this.#nonce,
      lastCall: this.#lastCall,
      lastQuestion: this.#lastQuestion,
      sessions: [...this.#sessions],
      questions: [...this.#questions].map(([name, { serverId }]) => [name, serverId] as const),
      subscribers: [...this.#subscribers].map(([uri, sessions]) => [uri, [...sessions]] as const),
    };
  }

  get inFlight(): number {
    return this.#calls.size;
  }

  get sessions(): ReadonlySet<string> {
    return this.#sessions;
  }

  attach(session: string): void {
    this.#sessions.add(session);
  }

  /** Forgets a session. Returns what must be sent into the server for it: its calls' cancellation, lost subscriptions. */
  detach(session: string): JsonRpcMessage[] {
    this.#sessions.delete(session);
    const out: JsonRpcMessage[] = [];
    for (const call of this.#calls.values()) {
      if (call.session === session) out.push(cancelled(call.number, 'The session has ended.'));
    }
    for (const uri of this.#subscribers.keys()) {
      if (this.#unsubscribe(uri, session) === 'last') out.push(this.#own('resources/unsubscribe', { uri }));
    }
    return out;
  }

  /** A client's request, renumbered. The caller checked `inFlight` against `MAX_IN_FLIGHT`. */
  request(session: string, message: JsonRpcRequest): { call: Call; message: JsonRpcRequest } {
    const number = ++this.#lastCall;
    const token = progressTokenOf(message);
    const uri = typeof message.params?.uri === 'string' ? message.params.uri : undefined;
    const call: Call = { number, session, clientId: message.id, method: message.method, progressToken: token, uri };
    this.#calls.set(number, call);
    return { call, message: renumbered(message, number) };
  }

  /**
   * A client's notification as the server should see it, or nothing when it says nothing to this process.
   * `notifications/cancelled` names the server's number of the call; one for a settled call is dropped.
   */
  notification(session: string, message: JsonRpcNotification): JsonRpcNotification[] {
    if (message.method === 'notifications/cancelled') return cancellations(this.#calls.values(), session, message);
    if (this.#mode === 'shared' && message.method !== 'notifications/progress') return [];
    return [message];
  }

  /** A client's answer to a question of the server, under the server's own id; nothing when nothing was asked. */
  answer(message: JsonRpcResponse): JsonRpcResponse | undefined {
    if (typeof message.id !== 'string') return undefined;
    const question = this.#questions.get(message.id);
    if (!question) return undefined;
    this.#questions.delete(message.id);
    return { ...message, id: question.serverId };
  }

  /** Where a message of the server goes. `via` is the call on whose own stream it came, where calls have streams. */
  fromServer(message: JsonRpcMessage, via?: CallNumber): Route {
    if (isRequest(message)) return this.#question(message, via);
    if (isNotification(message)) return this.#said(message, via);
    return this.#answered(message);
  }

  /** Forgets one call. Returns what tells the server, nothing when the call was over. */
  cancel(number: CallNumber): JsonRpcNotification | undefined {
    if (!this.#calls.delete(number)) return undefined;
    this.#detachQuestions(number);
    return cancelled(number, 'The client gave up this request.');
  }

  /** All calls in flight, which are over now: the process is gone, or we are. */
  abandon(): Call[] {
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    return calls;
  }

  #answered(message: JsonRpcResponse): Route {
    const call = typeof message.id === 'number' ? this.#calls.get(message.id) : undefined;
    if (!call) return { to: 'nobody', reason: 'it answers no call in flight' };
    this.#calls.delete(call.number);
    this.#detachQuestions(call.number);
    if ('result' in message && call.uri !== undefined) {
      if (call.method === 'resources/subscribe') this.#subscribe(call.uri, call.session);
      if (call.method === 'resources/unsubscribe') this.#unsubscribe(call.uri, call.session);
    }
    return { to: 'answer', call, message: { ...message, id: call.clientId } };
  }

  #question(message: JsonRpcRequest, via: CallNumber | undefined): Route {
    if (message.method === 'ping') return { to: 'server', message: { jsonrpc: '2.0', id: message.id, result: {} } };
    const [session] = this.#sessions;
    if (this.#mode === 'shared' || session === undefined || !this.#hasRoom()) {
      return {
        to: 'server',
        message: {
          jsonrpc: '2.0',
          id: message.id,
          error: { code: -32601, message: 'No client can be asked from this process.' },
        },
      };
    }
    const call = this.#callOf(via) ?? this.#newestCall();
    const name = `${this.#nonce}-${++this.#lastQuestion}`;
    this.#questions.set(name, { serverId: message.id, call: call?.number });
    const renamed = { ...message, id: name };
    return call ? { to: 'call', call, message: renamed } : { to: 'sessions', sessions: [session], message: renamed };
  }

  #said(message: JsonRpcNotification, via: CallNumber | undefined): Route {
    switch (message.method) {
      case 'notifications/progress': {
        const call = this.#calls.get(numberFrom(message.params?.progressToken));
        if (!call || call.progressToken === undefined)
          return { to: 'nobody', reason: 'its progress token is of no call in flight' };
        return {
          to: 'call',
          call,
          message: { ...message, params: { ...message.params, progressToken: call.progressToken } },
        };
      }
      case 'notifications/cancelled': {
        const asked = [...this.#questions].find(([, question]) => question.serverId === message.params?.requestId);
        if (!asked) return { to: 'nobody', reason: 'it cancels no open question' };
        const [name, question] = asked;
        this.#questions.delete(name);
        const call = question.call === undefined ? undefined : this.#calls.get(question.call);
        return this.#toCallOrAll(call, { ...message, params: { ...message.params, requestId: name } });
      }
      case 'notifications/message': {
        const call = this.#callOf(via);
        if (call) return { to: 'call', call, message };
        const alone = this.#mode === 'own' || this.#calls.size === 1;
        if (!alone)
          return { to: 'nobody', reason: 'a log line of a shared process cannot be attributed to one session' };
        return this.#toCallOrAll(this.#newestCall(), message);
      }
      case 'notifications/resources/updated': {
        const sessions =
          this.#mode === 'own' ? [...this.#sessions] : this.#subscribersOf(nameFrom(message.params?.uri));
        return sessions.length > 0
          ? { to: 'sessions', sessions, message }
          : { to: 'nobody', reason: 'nobody subscribed' };
      }
      default:
        return this.#toCallOrAll(undefined, message);
    }
  }

  #toCallOrAll(call: Call | undefined, message: JsonRpcMessage): Route {
    if (call) return { to: 'call', call, message };
    const sessions = [...this.#sessions];
    return sessions.length > 0
      ? { to: 'sessions', sessions, message }
      : { to: 'nobody', reason: 'no session is attached' };
  }

  #callOf(via: CallNumber | undefined): Call | undefined {
    return via === undefined ? undefined : this.#calls.get(via);
  }

  /**
   * Over stdio nothing says which call a question belongs to: the one it was put on may be over while the server still
   * waits. It stays answerable.
   */
  #detachQuestions(call: CallNumber): void {
    for (const [name, question] of this.#questions) {
      if (question.call === call) this.#questions.set(name, { ...question, call: undefined });
    }
  }

  /** Room for one more question: the oldest that no call waits for makes it. */
  #hasRoom(): boolean {
    if (this.#questions.size < MAX_QUESTIONS) return true;
    const stale = [...this.#questions].find(([, { call }]) => call === undefined);
    return stale !== undefined && this.#questions.delete(stale[0]);
  }

  #newestCall(): Call | undefined {
    let newest: Call | undefined;
    for (const call of this.#calls.values()) newest = call;
    return newest;
  }

  #subscribe(uri: string, session: string): void {
    const subscribers = this.#subscribers.get(uri) ?? new Set();
    subscribers.add(session);
    this.#subscribers.set(uri, subscribers);
  }

  /** A server may name a part of what was subscribed to (2025-11-25, ResourceUpdatedNotification). */
  #subscribersOf(updated: string): string[] {
    const found = [...this.#subscribers]
      .filter(([uri]) => updated.startsWith(uri))
      .flatMap(([, sessions]) => [...sessions]);
    return [...new Set(found)];
  }

  #unsubscribe(uri: string, session: string): 'last' | 'others' | 'none' {
    const subscribers = this.#subscribers.get(uri);
    if (!subscribers?.delete(session)) return 'none';
    if (subscribers.size > 0) return 'others';
    this.#subscribers.delete(uri);
    return 'last';
  }

  /** A request of our own into the server; its answer reaches nobody. */
  #own(method: string, params: Record<string, unknown>): JsonRpcRequest {
    return { jsonrpc: '2.0', id: ++this.#lastCall, method, params };
  }
}

function cancelled(requestId: RequestId, reason: string): JsonRpcNotification {
  return { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId, reason } };
}
