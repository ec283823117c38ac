/** When a stream ends with its credential, on a clock of the test. What real objects say is in revocation.edge.test.ts. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type Ending, endingWith, type Watch } from '../../edge/auth/ending.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const MINUTE = 60_000;
/** As far as streams use one. */
class Socket extends EventTarget {
  closed = false;
  close(): void {
    this.closed = true;
    this.dispatchEvent(new Event('close'));
  }
}
const watchOf = (socket: Socket, until: number | null = null): Watch => ({ socket: socket as never, until });

/** A stream that never ends by itself, and what is seen of it. */
function stream(ending: Ending) {
  const seen = { ended: false, left: false };
  let fail: (reason: Error) => void = () => undefined;
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      fail = (reason) => controller.error(reason);
    },
    cancel: () => {
      seen.left = true;
    },
  });
  const headers = { 'content-type': 'text/event-stream' };
  const reader = endingWith(ending, new Response(body, { headers })).body?.getReader();
  const reading = reader?.read().then(({ done }) => {
    seen.ended = done;
  });
  reading?.catch(() => undefined);
  return { seen, reader, fail: (reason: Error) => fail(reason) };
}

test('an answer that is no stream passes as it is', () => {
  const response = Response.json({});
  expect(endingWith({ expiresAt: 0 }, response)).toBe(response);
});

test('at its expiry, also beyond what one timer counts', async () => {
  const month = 31 * 24 * 60 * MINUTE;
  const { seen } = stream({ expiresAt: Date.now() + month });
  await vi.advanceTimersByTimeAsync(month - 1);
  expect(seen).toEqual({ ended: false, left: false });
  await vi.advanceTimersByTimeAsync(1);
  expect(seen).toEqual({ ended: true, left: true });
});

test('when the watch closes', async () => {
  const socket = new Socket();
  const { seen } = stream({ watch: async () => watchOf(socket) });
  await vi.advanceTimersByTimeAsync(MINUTE);
  expect(seen.ended).toBe(false);
  socket.close();
  await vi.advanceTimersByTimeAsync(0);
  expect(seen).toEqual({ ended: true, left: true });
});

test.each([
  ['nothing can be watched', async () => null],
  ['nobody can tell', () => Promise.reject(new Error('away'))],
])('two seconds after its begin when %s', async (_, watch) => {
  const { seen } = stream({ watch });
  await vi.advanceTimersByTimeAsync(1999);
  expect(seen.ended).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(seen.ended).toBe(true);
});

test('the watch is renewed when its time is over, and ends the stream when there is nothing to watch any more', async () => {
  const sockets = [new Socket(), new Socket()];
  const watches = [
    watchOf(sockets[0] as Socket, Date.now() + MINUTE),
    watchOf(sockets[1] as Socket, Date.now() + 2 * MINUTE),
    null,
  ];
  const watch = vi.fn(async () => watches.shift() ?? null);
  const { seen } = stream({ watch });
  await vi.advanceTimersByTimeAsync(MINUTE + 1);
  expect([watch.mock.calls.length, ...sockets.map(({ closed }) => closed)]).toEqual([2, true, false]);
  expect(seen.ended).toBe(false);
  await vi.advanceTimersByTimeAsync(MINUTE);
  expect(seen.ended).toBe(true);
  expect(sockets[1]?.closed).toBe(true);
});

test('an object whose clock is behind is not asked without a pause', async () => {
  const watch = vi.fn(async () => watchOf(new Socket(), Date.now() - 1));
  stream({ watch });
  await vi.advanceTimersByTimeAsync(10_000);
  expect(watch.mock.calls.length).toBe(5);
});

test.each(['its client leaves', 'what is behind it breaks'])('nothing is watched any more once %s', async (how) => {
  const socket = new Socket();
  const { reader, fail } = stream({ expiresAt: Date.now() + MINUTE, watch: async () => watchOf(socket) });
  await vi.advanceTimersByTimeAsync(3000);
  if (how === 'its client leaves') await reader?.cancel();
  else fail(new Error('broken'));
  await vi.advanceTimersByTimeAsync(0);
  expect([socket.closed, vi.getTimerCount()]).toEqual([true, 0]);
});

test('a watch that comes too late is let go', async () => {
  const socket = new Socket();
  const { promise, resolve } = Promise.withResolvers<Watch>();
  const { reader } = stream({ watch: () => promise });
  await vi.advanceTimersByTimeAsync(3000);
  await reader?.cancel();
  resolve(watchOf(socket));
  await vi.advanceTimersByTimeAsync(0);
  expect(socket.closed).toBe(true);
});
