/** For which sleeping machines something waits: decided purely, and acted out by a supervisor over machines that cost nothing. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Log } from '../../origin/log.ts';
import { type Sleeper, standBy } from '../../origin/supervisor/standby.ts';
import { Supervisor } from '../../origin/supervisor/supervisor.ts';
import type { MachineEnd, RunningMachine } from '../../origin/vm/driver.ts';

const STANDBY_MIB = 40;
const sleeper = (key: string, idleSince: number, waits = false): Sleeper => ({
  key,
  idleSince,
  waits,
  memoryMiB: STANDBY_MIB,
});

describe('something waits', () => {
  test.each<[string, Sleeper[], number, number, string[], string[]]>([
    ['for the one that was used last', [sleeper('a', 1), sleeper('b', 2)], 1, 1e6, ['b'], []],
    ['no more for one that was used before it', [sleeper('a', 1, true), sleeper('b', 2)], 1, 1e6, ['b'], ['a']],
    ['for as many as it is allowed', [sleeper('a', 1), sleeper('b', 2), sleeper('c', 3)], 2, 1e6, ['c', 'b'], []],
    ['for as many as there is memory', [sleeper('a', 1), sleeper('b', 2)], 2, STANDBY_MIB * 2 - 1, ['b'], []],
    ['for nobody when memory is needed', [sleeper('a', 1, true)], 2, -500, [], ['a']],
    ['on, while nothing changes', [sleeper('a', 1, true), sleeper('b', 1)], 1, Number.POSITIVE_INFINITY, [], []],
  ])('%s', (_what, sleepers, most, freeMiB, start, end) => {
    expect(standBy(sleepers, most, freeMiB)).toEqual({ start, end });
  });

  test('for never more than allowed and fits, for the last used, and it settles', () => {
    const one = fc.record({
      idleSince: fc.nat(9),
      waits: fc.boolean(),
      memoryMiB: fc.integer({ min: 32, max: 96 }),
    });
    fc.assert(
      fc.property(
        fc.array(one, { maxLength: 8 }),
        fc.nat(5),
        fc.integer({ min: -100, max: 700 }),
        (ones, most, freeMiB) => {
          const sleepers = ones.map((other, n) => ({ key: `m${n}`, ...other }));
          const { start, end } = standBy(sleepers, most, freeMiB);
          const after = sleepers.map((one) => ({
            ...one,
            waits: start.includes(one.key) || (one.waits && !end.includes(one.key)),
          }));
          const waiting = after.filter(({ waits }) => waits);
          expect(waiting.length).toBeLessThanOrEqual(most);
          const taken = waiting.reduce((sum, { memoryMiB }) => sum + memoryMiB, 0);
          expect(taken).toBeLessThanOrEqual(Math.max(0, freeMiB));
          const oldest = Math.min(...waiting.map(({ idleSince }) => idleSince));
          for (const { waits, idleSince } of after) if (!waits) expect(idleSince).toBeLessThanOrEqual(oldest);
          if (freeMiB >= 5 * 96) expect(waiting).toHaveLength(Math.min(most, sleepers.length));
          expect(standBy(after, most, freeMiB)).toEqual({ start: [], end: [] });
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

const SLEEPS = { pauseAfterMs: 10, hibernateAfterMs: 20, stopAfterMs: Number.POSITIVE_INFINITY };
const STEP_MS = 5;
const quiet = () => undefined;
const LOG: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet, server: quiet, machine: quiet };
let waiting: Set<string>;
let wokenWith: string[];
let supervisor: Supervisor;

/** Its `standby` is a name in a set; a wake takes it. */
function machineOf(key: string): RunningMachine {
  const gone = Promise.withResolvers<MachineEnd>();
  const step = () => new Promise<void>((resolve) => setTimeout(resolve, STEP_MS));
  const end = () => {
    waiting.delete(key);
    gone.resolve({ reason: 'ended', consoleTail: '' });
  };
  const standby = {
    memoryMiB: STANDBY_MIB,
    get waits() {
      return waiting.has(key);
    },
    start: () => void waiting.add(key),
    end: async () => void waiting.delete(key),
  };
  return {
    accelerator: 'none',
    gone: gone.promise,
    spawn: () => Promise.reject(new Error('no')),
    sync: async () => undefined,
    stop: async () => end(),
    kill: end,
    sleep: {
      pause: async () => 0,
      resume: step,
      hibernate: async () => {
        await step();
        return { bytes: 1 };
      },
      wake: async () => {
        if (waiting.delete(key)) wokenWith.push(key);
        await step();
      },
      standby,
    },
  };
}

/** Calls the machine; it then falls asleep. */
async function use(key: string): Promise<void> {
  const lease = supervisor.lease(key);
  await vi.advanceTimersByTimeAsync(STEP_MS);
  (await lease).release();
  await vi.advanceTimersByTimeAsync(100);
}

function begin(standbys: number): void {
  supervisor = new Supervisor({ log: LOG, memoryMiB: 1_000, standbys });
  for (const [key, memoryMiB] of [
    ['a', 100],
    ['b', 100],
    ['c', 100],
    ['large', 1_000 - STANDBY_MIB],
  ] as const) {
    supervisor.define(key, async () => machineOf(key), { memoryMiB, sleeps: SLEEPS });
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  waiting = new Set();
  wokenWith = [];
});
afterEach(() => void vi.useRealTimers());

test('by default nothing waits', async () => {
  begin(0);
  for (const key of ['a', 'b']) await use(key);
  expect([...waiting]).toEqual([]);
});

test('the machines that fell asleep last have one, and wake with it', async () => {
  begin(2);
  for (const key of ['a', 'b', 'c']) await use(key);
  expect([...waiting].sort()).toEqual(['b', 'c']);
  await use('a');
  await use('c');
  expect(wokenWith).toEqual(['c']);
  expect([...waiting].sort()).toEqual(['a', 'c']);
});

test('a wake does not wait for the start of another one', async () => {
  begin(1);
  for (const key of ['a', 'b']) await use(key);
  const lease = supervisor.lease('b');
  await vi.advanceTimersByTimeAsync(STEP_MS);
  (await lease).release();
  expect([...waiting]).toEqual([]);
  await vi.advanceTimersByTimeAsync(100);
  expect([...waiting]).toEqual(['b']);
});

test('a machine that needs the memory has it at once', async () => {
  begin(2);
  for (const key of ['a', 'b']) await use(key);
  expect([...waiting].sort()).toEqual(['a', 'b']);
  const lease = supervisor.lease('large');
  await vi.advanceTimersByTimeAsync(1);
  expect([...waiting]).toEqual(['b']);
  (await lease).release();
});

test('none is left of one that is removed, and none when the origin stops', async () => {
  begin(2);
  for (const key of ['a', 'b']) await use(key);
  await supervisor.remove('b');
  expect([...waiting]).toEqual(['a']);
  await supervisor.close();
  expect([...waiting]).toEqual([]);
});
