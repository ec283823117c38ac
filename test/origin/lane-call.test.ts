/** One call of a client without sessions, driven by hand: what the clock does, and who is settled. */
import { beforeEach, expect, test } from 'vitest';
import { type CallContext, LaneCall, type Reader } from '../../origin/bridge/lane/call.ts';
import type { CallSink } from '../../origin/bridge/peer.ts';
import type { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { parseEnvelope } from '../../shared/rev-2026-07-28.ts';
import { modern } from '../support/origin.ts';

let upstream: { sink: CallSink; signal: AbortSignal };
let replies: string[];
let mayPark: boolean;

beforeEach(() => {
  replies = [];
  mayPark = true;
});

function callWith(client: Reader): LaneCall {
  const context: CallContext = {
    method: 'tools/call',
    serverInfo: undefined,
    forward: (sink, signal) => {
      upstream = { sink, signal };
    },
    reply: (id) => void replies.push(id),
    seal: (round) => `round ${round}`,
    mayPark: () => mayPark,
    orphan: () => undefined,
    changed: () => undefined,
  };
  return new LaneCall(context, client, []);
}
function reader(id: number) {
  const gone = new AbortController();
  const settled: (JsonRpcResponse | MoorageError)[] = [];
  const sink: CallSink = {
    open: true,
    message: () => undefined,
    answer: (answer) => void settled.push(answer),
    fail: (error) => void settled.push(error),
  };
  const envelope = parseEnvelope(modern(id, 'tools/call', {}, { sampling: {} }).params);
  return { id, sink, envelope, signal: gone.signal, gone, settled };
}
const question = { jsonrpc: '2.0', id: 'q', method: 'sampling/createMessage', params: {} } as const;
const parked = async (client = reader(1)) => {
  const call = callWith(client);
  upstream.sink.message(question);
  await expect.poll(() => client.settled).toHaveLength(1);
  return { call, client };
};

test('nobody comes back: the call is cancelled at the server, and a late retry is refused', async () => {
  const { call, client } = await parked();
  expect(client.settled[0]).toMatchObject({ id: 1, result: { resultType: 'input_required', requestState: 'round 1' } });
  client.gone.abort();
  expect(upstream.signal.aborted).toBe(false);
  call.expire();
  expect(upstream.signal.aborted).toBe(true);
  expect(replies).toEqual(['q']);
  const late = reader(2);
  call.retry(late, 1, { 'input-1': {} });
  expect(late.settled).toMatchObject([{ code: 'invalid_params' }]);
  expect(client.settled).toHaveLength(1);
});

test('the connection of a retry closes: that cancels', async () => {
  const { call } = await parked();
  const second = reader(2);
  call.retry(second, 1, { 'input-1': {} });
  expect(replies).toEqual(['q']);
  second.gone.abort();
  expect(upstream.signal.aborted).toBe(true);
  upstream.sink.answer({ jsonrpc: '2.0', id: 1, result: {} });
  expect(second.settled).toEqual([]);
});

test('no room to wait: the caller is told and the server too', async () => {
  mayPark = false;
  const { call, client } = await parked();
  expect(client.settled).toMatchObject([{ code: 'overloaded' }]);
  expect(upstream.signal.aborted).toBe(true);
  expect(call.over).toBe(true);
});

test('a question that the server takes back is not put', async () => {
  const client = reader(1);
  callWith(client);
  upstream.sink.message(question);
  upstream.sink.message({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'q' } });
  await new Promise((resolve) => setTimeout(resolve, 40));
  expect(client.settled).toEqual([]);
  upstream.sink.answer({ jsonrpc: '2.0', id: 1, result: { content: [] } });
  expect(client.settled).toMatchObject([{ id: 1, result: { content: [], resultType: 'complete' } }]);
});
