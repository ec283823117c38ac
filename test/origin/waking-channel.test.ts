import { describe, expect, test, vi } from 'vitest';
import type { ChannelEnd, ChannelEvents } from '../../origin/bridge/channel.ts';
import { WakingChannel } from '../../origin/bridge/waking-channel.ts';
import type { Lease } from '../../origin/supervisor/slot.ts';
import type { RunningMachine } from '../../origin/vm/driver.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

/** A machine that is awake or not as the test says, and a server that hears and speaks. */
function server({ awake }: { awake: boolean }) {
  const state = { awake, leases: 0, wakes: 0, ended: false };
  const heard: JsonRpcMessage[] = [];
  const said: JsonRpcMessage[] = [];
  const lost: { id: number; code: string }[] = [];
  const woken = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<ChannelEnd>();
  const later: (() => void)[] = [];
  const lease = (): Lease => {
    state.leases += 1;
    let held = true;
    return {
      machine: {} as RunningMachine,
      release: () => {
        if (held) state.leases -= 1;
        held = false;
      },
    };
  };
  let events: ChannelEvents | undefined;
  const channel = new WakingChannel(
    (to) => {
      events = to;
      return {
        send: (message) => void heard.push(message),
        abandon: () => false,
        unread: 0,
        closed: closed.promise,
        end: async () => {
          state.ended = true;
          closed.resolve({ what: 'it was ended', data: {} });
        },
      };
    },
    {
      lease: async () => {
        state.wakes += 1;
        await woken.promise;
        return lease();
      },
      leaseNow: () => (state.awake ? lease() : undefined),
      whenAwake: (act) => void later.push(act),
    },
    { message: (message) => void said.push(message), lost: (id, { code }) => void lost.push({ id, code }) },
  );
  const wake = async () => {
    state.awake = true;
    woken.resolve();
    await new Promise(setImmediate);
    for (const act of later.splice(0)) act();
  };
  const say = (message: object) => events?.message({ jsonrpc: '2.0', ...message } as JsonRpcMessage);
  return { channel, state, heard, said, lost, wake, say, closed, refuse: woken.reject };
}

const call = (id: number, method = 'tools/call'): JsonRpcMessage => ({ jsonrpc: '2.0', id, method, params: {} });
const ids = (messages: readonly JsonRpcMessage[]) => messages.map((message) => 'id' in message && message.id);

test('says whether it must be woken, without keeping it awake by the asking', () => {
  expect(server({ awake: false }).channel.asleep).toBe(true);
  const { channel, state } = server({ awake: true });
  expect([channel.asleep, state.leases]).toEqual([false, 0]);
});

describe('what is sent to a machine that sleeps', () => {
  test('waits for one wake, in order', async () => {
    const { channel, state, heard, wake } = server({ awake: false });
    for (const id of [1, 2, 3]) channel.send(call(id));
    expect([heard.length, channel.unread > 0]).toEqual([0, true]);
    await wake();
    channel.send(call(4));
    expect([ids(heard), state.wakes, state.leases, channel.unread]).toEqual([[1, 2, 3, 4], 1, 1, 0]);
  });

  test('was not seen when its process is lost: it may be repeated', async () => {
    const { channel, lost, closed } = server({ awake: false });
    channel.send(call(1));
    closed.resolve({ what: 'it is gone', data: {} });
    await channel.closed;
    expect(lost).toEqual([{ id: 1, code: 'session_unknown' }]);
  });

  test('fails with the reason for which the machine cannot be woken', async () => {
    const { channel, lost, refuse } = server({ awake: false });
    channel.send(call(1));
    refuse(new MoorageError('machine_failed', 'no'));
    await new Promise(setImmediate);
    expect(lost).toEqual([{ id: 1, code: 'machine_failed' }]);
  });

  test('ending its process waits until it wakes for something else', async () => {
    const { channel, state, wake } = server({ awake: false });
    const end = channel.end();
    await new Promise(setImmediate);
    expect([state.wakes, state.ended]).toEqual([0, false]);
    await wake();
    await end;
    expect([state.ended, state.leases]).toEqual([true, 0]);
  });
});

describe('the machine stays awake', () => {
  test('for a call until it is answered, and no longer', () => {
    const { channel, state, say } = server({ awake: true });
    channel.send(call(1));
    channel.send(call(2));
    say({ id: 1, result: {} });
    say({ method: 'notifications/message', params: {} });
    expect(state.leases).toBe(1);
    say({ id: 2, result: {} });
    expect(state.leases).toBe(0);
  });

  test.each<[string, object]>([
    ['a cancelled call', { method: 'notifications/cancelled', params: { requestId: 1 } }],
    ['an abandoned call', { abandon: 1 }],
  ])('not for %s', (_what, message) => {
    const { channel, state } = server({ awake: true });
    channel.send(call(1));
    if ('abandon' in message) channel.abandon(1);
    else channel.send({ jsonrpc: '2.0', ...message } as JsonRpcMessage);
    expect(state.leases).toBe(0);
  });

  test.each(['subscriptions/listen'])('not for %s, which may stay open for days', (method) => {
    const { channel, state, heard } = server({ awake: true });
    channel.send(call(1, method));
    expect([heard.length, state.leases]).toEqual([1, 0]);
  });

  test('not for a subscription or a notification', () => {
    const { channel, state, say } = server({ awake: true });
    channel.send(call(1, 'resources/subscribe'));
    say({ id: 1, result: {} });
    channel.send({ jsonrpc: '2.0', method: 'notifications/initialized' });
    expect(state.leases).toBe(0);
  });

  test.each<[string, object]>([
    ['until it is answered', { send: { id: 'q', result: {} } }],
    ['until the server withdraws it', { say: { method: 'notifications/cancelled', params: { requestId: 'q' } } }],
  ])('for a question of the server %s', (_how, end: { send?: object; say?: object }) => {
    const { channel, state, say } = server({ awake: true });
    say({ id: 'q', method: 'elicitation/create', params: {} });
    expect(state.leases).toBe(1);
    if (end.say) say(end.say);
    else channel.send({ jsonrpc: '2.0', ...end.send } as JsonRpcMessage);
    expect(state.leases).toBe(0);
  });

  test('for a question no longer than ten minutes: its answer wakes the machine', () => {
    vi.useFakeTimers();
    try {
      const { state, say } = server({ awake: true });
      say({ id: 'q', method: 'elicitation/create', params: {} });
      vi.advanceTimersByTime(599_000);
      expect(state.leases).toBe(1);
      vi.advanceTimersByTime(2_000);
      expect(state.leases).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test.each<[string, object, object]>([
    [
      '2025-11-25, ended by its status',
      { task: { taskId: 't', status: 'working', ttl: 60_000 } },
      { method: 'notifications/tasks/status', params: { taskId: 't', status: 'completed' } },
    ],
    [
      'of the extension, ended by a result',
      { resultType: 'task', taskId: 't', status: 'working' },
      { id: 2, result: { taskId: 't', status: 'failed' } },
    ],
  ])('for a task (%s)', (_which, result, end) => {
    const { channel, state, say } = server({ awake: true });
    channel.send(call(1));
    say({ id: 1, result });
    expect(state.leases).toBe(1);
    if ('id' in end) channel.send(call(2, 'tasks/get'));
    say(end);
    expect(state.leases).toBe(0);
  });
});
