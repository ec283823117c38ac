import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Correlator } from '../../origin/bridge/correlate.ts';
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';

const call = (id: string | number, extra: Record<string, unknown> = {}): JsonRpcRequest => ({
  jsonrpc: '2.0',
  id,
  method: 'tools/call',
  params: { name: 'echo', ...extra },
});
const notification = (method: string, params?: Record<string, unknown>): JsonRpcMessage => ({
  jsonrpc: '2.0',
  method,
  ...(params ? { params } : {}),
});

function correlator(mode: 'own' | 'shared', sessions = ['s']) {
  const made = new Correlator(mode, 'nonce');
  for (const session of sessions) made.attach(session);
  return made;
}

describe('correlate', () => {
  test('results reach the call that asked, whatever the clients chose as ids and whatever the order', () => {
    const id = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.constantFrom('0', '1', 'a'));
    const calls = fc.array(fc.tuple(fc.constantFrom('s', 't', 'u'), id), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(calls, fc.infiniteStream(fc.nat()), (asked, order) => {
        const c = correlator('shared', ['s', 't', 'u']);
        const pending = asked.map(([session, clientId]) => ({
          session,
          clientId,
          sent: c.request(session, call(clientId)),
        }));
        while (pending.length > 0) {
          const [next] = pending.splice((order.next().value ?? 0) % pending.length, 1);
          if (!next) throw new Error('unreachable');
          const answer = { jsonrpc: '2.0', id: next.sent.message.id, result: { n: next.sent.call.number } } as const;
          const route = c.fromServer(answer);
          expect(route).toMatchObject({
            to: 'answer',
            call: { session: next.session },
            message: { id: next.clientId },
          });
          expect(c.fromServer(answer)).toMatchObject({ to: 'nobody' });
        }
        expect(c.inFlight).toBe(0);
      }),
    );
  });

  test('progress goes to its call under the token of the client; `_meta` is otherwise untouched', () => {
    const c = correlator('own');
    const sent = c.request('s', call(1, { _meta: { progressToken: 'tok', traceparent: '00-1' } }));
    expect(sent.message.params?._meta).toEqual({ progressToken: sent.call.number, traceparent: '00-1' });
    const progress = notification('notifications/progress', { progressToken: sent.call.number, progress: 1 });
    expect(c.fromServer(progress)).toMatchObject({
      to: 'call',
      message: { params: { progressToken: 'tok', progress: 1 } },
    });
    c.fromServer({ jsonrpc: '2.0', id: sent.call.number, result: {} });
    expect(c.fromServer(progress)).toMatchObject({ to: 'nobody' });
  });

  test('a cancellation names the number the server knows, and only for calls of that session', () => {
    const c = correlator('shared', ['s', 't']);
    const mine = c.request('s', call(5));
    c.request('t', call(5));
    const cancel = {
      jsonrpc: '2.0',
      method: 'notifications/cancelled',
      params: { requestId: 5, reason: 'r' },
    } as const;
    expect(c.notification('s', cancel)).toEqual([{ ...cancel, params: { requestId: mine.call.number, reason: 'r' } }]);
    expect(c.notification('s', { ...cancel, params: { requestId: 6 } })).toEqual([]);
  });

  test('a question of the server travels on the newest call and its answer comes back under the server’s id', () => {
    const c = correlator('own');
    const sent = c.request('s', call(1));
    const route = c.fromServer({ jsonrpc: '2.0', id: 0, method: 'sampling/createMessage' });
    expect(route).toMatchObject({ to: 'call', call: { number: sent.call.number }, message: { id: 'nonce-1' } });
    const answer = { jsonrpc: '2.0', id: 'nonce-1', result: { ok: true } } as const;
    expect(c.answer(answer)).toEqual({ ...answer, id: 0 });
    expect(c.answer(answer)).toBeUndefined();
    expect(c.answer({ ...answer, id: 'other-1' })).toBeUndefined();
  });

  test('a question without a call goes to the session; one on a settled call can still be answered, once', () => {
    const c = correlator('own');
    expect(c.fromServer({ jsonrpc: '2.0', id: 'q', method: 'roots/list' })).toMatchObject({
      to: 'sessions',
      sessions: ['s'],
    });
    const sent = c.request('s', call(1));
    c.fromServer({ jsonrpc: '2.0', id: 9, method: 'elicitation/create' });
    c.fromServer({ jsonrpc: '2.0', id: sent.call.number, result: {} });
    expect(c.answer({ jsonrpc: '2.0', id: 'nonce-2', result: {} })).toMatchObject({ id: 9 });
    expect(c.answer({ jsonrpc: '2.0', id: 'nonce-2', result: {} })).toBeUndefined();
  });

  test('the server’s ping is answered here', () => {
    expect(correlator('own').fromServer({ jsonrpc: '2.0', id: 3, method: 'ping' })).toEqual({
      to: 'server',
      message: { jsonrpc: '2.0', id: 3, result: {} },
    });
  });

  test('nobody is asked from a shared process, and its log lines reach only a call that is alone', () => {
    const c = correlator('shared', ['s', 't']);
    c.request('s', call(1));
    expect(c.fromServer({ jsonrpc: '2.0', id: 3, method: 'elicitation/create' })).toMatchObject({
      to: 'server',
      message: { error: { code: -32601 } },
    });
    const log = notification('notifications/message', { level: 'info', data: 'x' });
    expect(c.fromServer(log)).toMatchObject({ to: 'call', call: { session: 's' } });
    c.request('t', call(1));
    expect(c.fromServer(log)).toMatchObject({ to: 'nobody' });
  });

  test('updates of a shared process reach who subscribed, lists reach all, and the last one out unsubscribes', () => {
    const c = correlator('shared', ['s', 't']);
    const subscribe = c.request('s', { jsonrpc: '2.0', id: 1, method: 'resources/subscribe', params: { uri: 'a:1' } });
    c.fromServer({ jsonrpc: '2.0', id: subscribe.call.number, result: {} });
    const updated = notification('notifications/resources/updated', { uri: 'a:1' });
    expect(c.fromServer(updated)).toMatchObject({ to: 'sessions', sessions: ['s'] });
    expect(c.fromServer(notification('notifications/tools/list_changed'))).toMatchObject({
      to: 'sessions',
      sessions: ['s', 't'],
    });
    expect(c.detach('s')).toMatchObject([{ method: 'resources/unsubscribe', params: { uri: 'a:1' } }]);
    expect(c.fromServer(updated)).toMatchObject({ to: 'nobody' });
  });

  test('a session that leaves cancels its calls, and what is abandoned is every call in flight', () => {
    const c = correlator('shared', ['s', 't']);
    const mine = c.request('s', call(1));
    const other = c.request('t', call(1));
    expect(c.detach('s')).toMatchObject([
      { method: 'notifications/cancelled', params: { requestId: mine.call.number } },
    ]);
    expect(c.abandon()).toEqual([mine.call, other.call]);
    expect(c.inFlight).toBe(0);
  });
});
