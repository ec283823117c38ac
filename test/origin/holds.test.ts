/** Holds of the owner: a lease each, its end, and what ends it sooner. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Holds } from '../../origin/holds.ts';
import type { ProcessDefinition } from '../../origin/server.ts';
import type { MachineEnd, RunningMachine } from '../../origin/vm/driver.ts';

const HOUR = 3_600_000;
/** Leases that are held now. */
let leases = 0;
let gone: PromiseWithResolvers<MachineEnd>;
let holds: Holds;

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
  leases = 0;
  gone = Promise.withResolvers();
  holds = new Holds({
    // Of a definition holds read the machine alone, and of the machine its end.
    entrances: { of: (server) => ({ name: server, machine: 'shared' }) as ProcessDefinition },
    machines: {
      lease: async () => {
        leases += 1;
        const release = () => {
          leases -= 1;
        };
        return { machine: { gone: gone.promise } as RunningMachine, release };
      },
    },
  });
});
afterEach(() => void vi.useRealTimers());

test('a hold is one lease until its time is over', async () => {
  expect(await holds.hold('notes', HOUR)).toEqual({ machine: 'shared', until: '1970-01-01T01:00:00.000Z' });
  vi.advanceTimersByTime(HOUR - 1);
  expect([leases, holds.list()]).toEqual([1, [{ machine: 'shared', until: '1970-01-01T01:00:00.000Z' }]]);
  vi.advanceTimersByTime(1);
  expect([leases, holds.list()]).toEqual([0, []]);
});

test('another hold of the machine sets its end anew, later or sooner', async () => {
  await holds.hold('notes', HOUR);
  await holds.hold('other', 2 * HOUR);
  vi.advanceTimersByTime(HOUR);
  expect(leases).toBe(1);
  await holds.hold('notes', 1_000);
  vi.advanceTimersByTime(1_000);
  expect([leases, holds.list()]).toEqual([0, []]);
});

test('it is released by the name of the server or of the machine, once', async () => {
  for (const name of ['notes', 'shared']) {
    await holds.hold('notes', HOUR);
    holds.release(name);
    expect([leases, holds.list()]).toEqual([0, []]);
    expect(() => holds.release(name)).toThrow('is not held');
  }
});

test('it ends with its machine, and does not touch a later one', async () => {
  await holds.hold('notes', HOUR);
  const first = gone;
  gone = Promise.withResolvers();
  first.resolve({ reason: 'lost', consoleTail: '' });
  await vi.waitFor(() => expect(holds.list()).toEqual([]));
  await holds.hold('notes', 2 * HOUR);
  vi.advanceTimersByTime(HOUR);
  expect([leases, holds.list().length]).toEqual([1, 1]);
});

test('it lasts seven days at most, and ends with the agent', async () => {
  const { until } = await holds.hold('notes', 100 * 24 * HOUR);
  expect(until).toBe('1970-01-08T00:00:00.000Z');
  holds.close();
  expect([leases, vi.getTimerCount()]).toEqual([0, 0]);
});
