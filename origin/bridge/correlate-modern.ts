/**
 * Owns the ids of one channel in the era without sessions (2026-07-28): which message of the server belongs to which
 * request. Pure, no I/O.
 *
 * Requests of many clients share the channel: each gets a number of ours, which is also its progress token and, for
 * `subscriptions/listen`, its subscription id. All three are translated back on the way out, and nothing else of a
 * message is touched.
 *
 * Invariants: a request is settled at most once; nothing reaches another request than its own; a message that cannot be
 * attributed reaches nobody. Servers of this era do not ask: a request of theirs is dropped.
 */
import {
  isNotification,
  isRequest,
  type JsonRpcMessage,
  type JsonRpcNotification,
  type JsonRpcRequest,
  type JsonRpcResponse,
  numberFrom,
  progressTokenOf,
} from '../../shared/jsonrpc.ts';
import { META, metaOf } from '../../shared/rev-2026-07-28.ts';
import type { Call, CallNumber, Correlates, Route } from './correlate.ts';
import { cancellations, renumbered } from './renumber.ts';

interface Open extends Call {
  readonly wantsLog: boolean;
}

export const LISTEN = 'subscriptions/listen';
/** In whose name we listen ourselves (`lane/list-watch.ts`): that is no work of the channel's. No lane has this name. */
export const WATCHER = 'moorage';

export class ModernCorrelator implements Correlates {
  readonly #calls = new Map<CallNumber, Open>();
  readonly #lanes = new Set<string>();
  #last: number;
  #watch: CallNumber | undefined;

  /** `last` is the number of the last request, of a channel that slept through a restart of ours. */
  constructor(last = 0) {
    this.#last = last;
  }

  get last(): number {
    return this.#last;
  }

  get inFlight(): number {
    return this.#calls.size - (this.#watch !== undefined && this.#calls.has(this.#watch) ? 1 : 0);
  }

  get sessions(): ReadonlySet<string> {
    return this.#lanes;
  }

  attach(lane: string): void {
    this.#lanes.add(lane);
  }

  detach(lane: string): JsonRpcMessage[] {
    this.#lanes.delete(lane);
    const mine = [...this.#calls.values()].filter((call) => call.session === lane);
    return mine.map(({ number }) => cancelled(number));
  }

  request(lane: string, message: JsonRpcRequest): { call: Call; message: JsonRpcRequest } {
    const number = ++this.#last;
    const token = progressTokenOf(message);
    const meta = metaOf(message.params);
    const call: Open = {
      number,
      session: lane,
      clientId: message.id,
      method: message.method,
      progressToken: token,
      uri: undefined,
      wantsLog: message.method !== LISTEN && meta?.[META.logLevel] !== undefined,
    };
    this.#calls.set(number, call);
    if (lane === WATCHER) this.#watch = number;
    return { call, message: renumbered(message, number) };
  }

  notification(lane: string, message: JsonRpcNotification): JsonRpcNotification[] {
    if (message.method !== 'notifications/cancelled') return [message];
    return cancellations(this.#calls.values(), lane, message);
  }

  answer(): undefined {
    return undefined;
  }

  cancel(number: CallNumber): JsonRpcNotification | undefined {
    return this.#calls.delete(number) ? cancelled(number) : undefined;
  }

  abandon(): Call[] {
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    return calls;
  }

  fromServer(message: JsonRpcMessage, via?: CallNumber): Route {
    if (isRequest(message)) return nobody('servers of 2026-07-28 do not ask');
    if (isNotification(message)) return this.#said(message, via);
    const call = typeof message.id === 'number' ? this.#calls.get(message.id) : undefined;
    if (!call) return nobody('it answers no request in flight');
    return this.#settle(call, message);
  }

  #settle(call: Open, message: JsonRpcResponse): Route {
    this.#calls.delete(call.number);
    const answer = { ...message, id: call.clientId };
    if (call.method !== LISTEN || !('result' in answer)) return { to: 'answer', call, message: answer };
    // The result closes the subscription and names it, as every message of it does.
    return { to: 'answer', call, message: { ...answer, result: named(answer.result, call) } };
  }

  #said(message: JsonRpcNotification, via: CallNumber | undefined): Route {
    const { method, params } = message;
    if (method === 'notifications/progress') {
      const call = this.#calls.get(numberFrom(params?.progressToken));
      if (!call || call.progressToken === undefined) return nobody('its progress token is of no request in flight');
      return { to: 'call', call, message: { ...message, params: { ...params, progressToken: call.progressToken } } };
    }
    if (method === 'notifications/cancelled') {
      const call = this.#calls.get(numberFrom(params?.requestId));
      if (call?.method !== LISTEN) return nobody('it cancels no subscription');
      return this.#settle(call, { jsonrpc: '2.0', id: call.number, result: { resultType: 'complete' } });
    }
    const subscription = metaOf(params)?.[META.subscriptionId];
    if (subscription !== undefined) {
      const call = this.#calls.get(numberFrom(subscription));
      if (call?.method !== LISTEN) return nobody('it belongs to no open subscription');
      return { to: 'call', call, message: { ...message, params: named(params ?? {}, call) } };
    }
    const call = via === undefined ? undefined : this.#calls.get(via);
    if (call) return { to: 'call', call, message };
    return method === 'notifications/message' ? this.#logged(message) : nobody('it belongs to no request');
  }

  /** Where requests share one stream a log line belongs to one that asked for log lines: certain while one lane did. */
  #logged(message: JsonRpcNotification): Route {
    const asked = [...this.#calls.values()].filter((call) => call.wantsLog);
    const newest = asked.at(-1);
    if (!newest || asked.some((call) => call.session !== newest.session)) {
      return nobody('a log line cannot be attributed to one request');
    }
    return { to: 'call', call: newest, message };
  }
}

function named(value: Record<string, unknown>, call: Call): Record<string, unknown> {
  return { ...value, _meta: { ...metaOf(value), [META.subscriptionId]: call.clientId } };
}

const nobody = (reason: string): Route => ({ to: 'nobody', reason });

const cancelled = (requestId: CallNumber): JsonRpcNotification => ({
  jsonrpc: '2.0',
  method: 'notifications/cancelled',
  params: { requestId, reason: 'The client gave up this request.' },
});
