/** Which machines may be awake together: decided purely, and acted out by a supervisor over machines that cost nothing. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Log } from '../../origin/log.ts';
import { type Claim, place, type Resident } from '../../origin/supervisor/admission.ts';
import { Supervisor } from '../../origin/supervisor/supervisor.ts';
import type { MachineEnd, RunningMachine } from '../../origin/vm/driver.ts';
import { MachineError } from '../../origin/vm/error.ts';

const resident = (key: string, memoryMiB: number, idleSince?: number, leaving = false): Resident => ({
  key,
  memoryMiB,
  idleSince,
  leaving,
});
const claim = (key: string, memoryMiB: number): Claim => ({ key, memoryMiB });

describe('a place', () => {
  test.each<[string, Claim[], Resident[], string[], string[]]>([
    ['is given where there is room', [claim('a', 50), claim('b', 50)], [], ['a', 'b'], []],
    ['is made by the longest idle', [claim('c', 50)], [resident('a', 50, 2), resident('b', 50, 1)], [], ['b']],
    [
      'is made by as many as are needed',
      [claim('c', 80)],
      [resident('a', 50, 2), resident('b', 50, 1)],
      [],
      ['b', 'a'],
    ],
    ['is waited for when somebody leaves already', [claim('c', 50)], [resident('a', 100, 1, true)], [], []],
    ['costs nobody his when it could not be made', [claim('c', 80)], [resident('a', 50), resident('b', 50, 1)], [], []],
    ['of the first is not taken by a smaller one', [claim('c', 80), claim('d', 20)], [resident('a', 50)], [], []],
    ['for more than there is, is given alone', [claim('c', 500)], [], ['c'], []],
    ['for more than there is, is made by all', [claim('c', 500)], [resident('a', 10, 1)], [], ['a']],
    [
      'is made for each who waits',
      [claim('c', 50), claim('d', 50)],
      [resident('a', 50, 1), resident('b', 50, 2)],
      [],
      ['a', 'b'],
    ],
  ])('%s', (_what, claims, residents, admit, yields) => {
    expect(place(claims, residents, 100)).toEqual({ admit, yield: yields });
  });

  test('never more than there is, in order, nobody in vain, nobody who is in use', () => {
    const size = fc.integer({ min: 1, max: 120 });
    const one = fc.record({
      memoryMiB: size,
      idleSince: fc.option(fc.nat(9), { nil: undefined }),
      leaving: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(size, { maxLength: 8 }), fc.array(one, { maxLength: 8 }), (sizes, others) => {
        const claims = sizes.map((memoryMiB, n) => claim(`c${n}`, memoryMiB));
        const residents = others.map((other, n) => ({ key: `r${n}`, ...other }));
        const total = 100;
        const sum = (of: readonly { memoryMiB: number }[]) =>
          of.reduce((all, { memoryMiB }) => all + Math.min(memoryMiB, total), 0);
        const verdict = place(claims, residents, total);
        expect(verdict.admit).toEqual(claims.slice(0, verdict.admit.length).map(({ key }) => key));
        const admitted = claims.slice(0, verdict.admit.length);
        if (admitted.length > 0) expect(sum(admitted) + sum(residents)).toBeLessThanOrEqual(total);
        const yielding = residents.filter(({ key }) => verdict.yield.includes(key));
        for (const { idleSince, leaving } of yielding)
          expect([idleSince === undefined, leaving]).toEqual([false, false]);
        // Whoever is longer idle than one that yields, yields too.
        const youngest = Math.max(-1, ...yielding.map(({ idleSince }) => idleSince ?? -1));
        for (const { key, idleSince, leaving } of residents) {
          if (idleSince !== undefined && !leaving && idleSince < youngest) expect(verdict.yield).toContain(key);
        }
        // With those who leave gone, the next claim gets its place.
        const next = claims[verdict.admit.length];
        if (yielding.length > 0 && next) {
          const staying = residents.filter(({ key, leaving }) => !leaving && !verdict.yield.includes(key));
          expect(sum([...staying, ...admitted, next])).toBeLessThanOrEqual(total);
        }
      }),
      { numRuns: 3_000 },
    );
  });
});

const SLEEPS = { pauseAfterMs: 10_000, hibernateAfterMs: 300_000, stopAfterMs: Number.POSITIVE_INFINITY };
/** How long the driver of these tests takes for anything, in milliseconds. */
const STEP_MS = 5;

let awake: Set<string>;
let most: number;
let supervisor: Supervisor;
let warnings: string[];

function machineOf(key: string): RunningMachine {
  const gone = Promise.withResolvers<MachineEnd>();
  const step = () => new Promise<void>((resolve) => setTimeout(resolve, STEP_MS));
  const end = () => {
    awake.delete(key);
    gone.resolve({ reason: 'ended', consoleTail: '' });
  };
  return {
    accelerator: 'none',
    gone: gone.promise,
    spawn: () => Promise.reject(new MachineError('spawn-failed', 'no')),
    sync: async () => undefined,
    stop: async () => end(),
    kill: end,
    sleep: {
      pause: async () => {
        await step();
        return 0;
      },
      resume: step,
      hibernate: async () => {
        await step();
        awake.delete(key);
        return { bytes: 1 };
      },
      wake: async () => {
        rise(key);
        await step();
      },
    },
  };
}

function rise(key: string): void {
  awake.add(key);
  most = Math.max(most, awake.size);
}

function define(key: string, memoryMiB = 100, sleeps: typeof SLEEPS | undefined = SLEEPS): void {
  supervisor.define(
    key,
    async () => {
      rise(key);
      await new Promise((resolve) => setTimeout(resolve, STEP_MS));
      return machineOf(key);
    },
    { memoryMiB, sleeps },
  );
}

const stateOf = (key: string) => supervisor.states().find((machine) => machine.key === key)?.state;

beforeEach(() => {
  vi.useFakeTimers();
  awake = new Set();
  most = 0;
  warnings = [];
  const log: Log = {
    debug: () => undefined,
    info: () => undefined,
    warn: (text) => void warnings.push(text),
    error: (text) => void warnings.push(text),
    server: () => undefined,
    machine: () => undefined,
  };
  supervisor = new Supervisor({ log, memoryMiB: 2_000 });
});
afterEach(() => void vi.useRealTimers());

test('1,000 machines, 20 of them awake at once: every call is answered, none is disturbed while it runs', async () => {
  for (let n = 0; n < 1_000; n += 1) define(`m${n}`);
  let answered = 0;
  const calls = Array.from({ length: 1_000 }, async (_, n) => {
    const key = `m${(n * 7) % 1_000}`;
    const lease = await supervisor.lease(key);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([key, awake.has(key), stateOf(key)]).toEqual([key, true, 'running']);
    lease.release();
    answered += 1;
  });
  await vi.advanceTimersByTimeAsync(30_000);
  await Promise.all(calls);
  expect([answered, most, warnings]).toEqual([1_000, 20, []]);
  expect(supervisor.states().filter(({ state }) => state === 'hibernated')).toHaveLength(980);
});

test('the longest idle goes to the disk, and comes back when it is called', async () => {
  for (const key of ['a', 'b', 'c']) define(key, 1_000);
  for (const key of ['a', 'b', 'a', 'c']) {
    const lease = supervisor.lease(key);
    await vi.advanceTimersByTimeAsync(1_000);
    (await lease).release();
  }
  expect(['a', 'b', 'c'].map(stateOf)).toEqual(['running', 'hibernated', 'running']);
  void supervisor.lease('b');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(['a', 'b', 'c'].map(stateOf)).toEqual(['hibernated', 'running', 'running']);
});

test('a call waits while all are in use, in order; in the end it is told when to come again', async () => {
  for (const key of ['busy', 'first', 'second']) define(key, 2_000);
  const lease = supervisor.lease('busy');
  await vi.advanceTimersByTimeAsync(STEP_MS);
  const got: string[] = [];
  const first = supervisor.lease('first').then((one) => {
    got.push('first');
    return one;
  });
  const second = supervisor.lease('second').catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(20_000);
  expect([got, stateOf('busy')]).toEqual([[], 'running']);
  (await lease).release();
  await vi.advanceTimersByTimeAsync(100);
  expect([got, stateOf('busy')]).toEqual([['first'], 'hibernated']);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(await second).toMatchObject({ code: 'overloaded', data: { retryAfterMs: 5_000 } });
  expect(warnings.join()).toMatch(/machine second: no memory/);
  (await first).release();
});

test('what never sleeps is not disturbed, nor what has no memory of its own', async () => {
  const never = Number.POSITIVE_INFINITY;
  define('always', 2_000, { pauseAfterMs: never, hibernateAfterMs: never, stopAfterMs: never });
  define('process', 0);
  define('m', 100);
  for (const key of ['always', 'process']) {
    const lease = supervisor.lease(key);
    await vi.advanceTimersByTimeAsync(STEP_MS);
    (await lease).release();
  }
  const refused = supervisor.lease('m').catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(await refused).toMatchObject({ code: 'overloaded' });
  expect(stateOf('always')).toBe('running');
});

test('whoever waits for memory is told when the origin stops, or the machine is removed', async () => {
  define('busy', 2_000);
  for (const key of ['m', 'n']) define(key, 2_000);
  void supervisor.lease('busy');
  await vi.advanceTimersByTimeAsync(STEP_MS);
  const waiting = ['m', 'n'].map((key) => supervisor.lease(key).catch((error: unknown) => error));
  await supervisor.remove('m');
  expect(await waiting[0]).toMatchObject({ code: 'machine_failed' });
  const closed = supervisor.close();
  await vi.advanceTimersByTimeAsync(1_000);
  await closed;
  expect(await waiting[1]).toMatchObject({ code: 'machine_failed' });
});
