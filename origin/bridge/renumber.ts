/** Owns how a client's messages get the numbers of a channel, in either era. Pure. */
import { type JsonRpcNotification, type JsonRpcRequest, progressTokenOf } from '../../shared/jsonrpc.ts';
import { metaOf } from '../../shared/rev-2026-07-28.ts';
import type { Call, CallNumber } from './correlate.ts';

/** A request under a number of ours, which is its progress token, too, where it has one. */
export function renumbered(message: JsonRpcRequest, number: CallNumber): JsonRpcRequest {
  const { params } = message;
  if (progressTokenOf(message) === undefined) return { ...message, id: number };
  return { ...message, id: number, params: { ...params, _meta: { ...metaOf(params), progressToken: number } } };
}

/** `notifications/cancelled` as the server should see it: it names our number. Nothing where that call is over. */
export function cancellations(
  calls: Iterable<Call>,
  session: string,
  message: JsonRpcNotification,
): JsonRpcNotification[] {
  return [...calls]
    .filter((call) => call.session === session && call.clientId === message.params?.requestId)
    .map((call) => ({ ...message, params: { ...message.params, requestId: call.number } }));
}
