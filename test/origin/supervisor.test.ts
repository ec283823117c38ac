import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Log } from '../../origin/log.ts';
import { Supervisor } from '../../origin/supervisor/supervisor.ts';
import type { MachineEnd, RunningMachine } from '../../origin/vm/driver.ts';
import { MachineError } from '../../origin/vm/error.ts';

const SLEEPS = { pauseAfterMs: 10_000, hibernateAfterMs: 300_000, stopAfterMs: Number.POSITIVE_INFINITY };

/** A machine that sleeps as it is told, and notes what it was told. */
function fakeMachine(told: string[], wake: () => Promise<void>) {
  const gone = Promise.withResolvers<MachineEnd>();
  const machine: RunningMachine = {
    accelerator: 'none',
    gone: gone.promise,
    spawn: () => Promise.reject(new MachineError('spawn-failed', 'no')),
    sync: async () => undefined,
    stop: async () => gone.resolve({ reason: 'stopped', consoleTail: '' }),
    kill: () => gone.resolve({ reason: 'killed', consoleTail: '' }),
    sleep: {
      pause: async () => {
        told.push('pause');
        return 0;
      },
      resume: async () => void told.push('resume'),
      hibernate: async (carry) => {
        told.push(`hibernate ${String(carry)}`);
        return { bytes: 1 };
      },
      wake: async () => {
        told.push('wake');
        await wake();
      },
    },
  };
  return machine;
}

let told: string[];
let warnings: string[];
let supervisor: Supervisor;
let wake: () => Promise<void>;
const stateOf = () => supervisor.states()[0]?.state;

beforeEach(() => {
  vi.useFakeTimers();
  told = [];
  warnings = [];
  wake = async () => undefined;
  const log: Log = {
    debug: () => undefined,
    info: () => undefined,
    warn: (text) => void warnings.push(text),
    error: (text) => void warnings.push(text),
    server: () => undefined,
    machine: () => undefined,
  };
  supervisor = new Supervisor({ log });
  const boot = async () => {
    told.push('boot');
    return fakeMachine(told, () => wake());
  };
  supervisor.define('m', boot, { sleeps: SLEEPS, carry: () => 'carried' });
});
afterEach(() => void vi.useRealTimers());

async function hibernated(): Promise<void> {
  (await supervisor.lease('m')).release();
  await vi.advanceTimersByTimeAsync(300_000);
  expect(stateOf()).toBe('hibernated');
}

test('sleeps by and by, and a burst of 50 calls wakes it once, in order', async () => {
  (await supervisor.lease('m')).release();
  await vi.advanceTimersByTimeAsync(9_999);
  expect(stateOf()).toBe('running');
  await vi.advanceTimersByTimeAsync(1);
  expect(stateOf()).toBe('paused');
  await vi.advanceTimersByTimeAsync(290_000);
  expect(told).toEqual(['boot', 'pause', 'hibernate carried']);
  const order: number[] = [];
  await Promise.all(
    Array.from({ length: 50 }, async (_, n) => {
      const lease = await supervisor.lease('m');
      order.push(n);
      await vi.advanceTimersByTimeAsync(60_000);
      lease.release();
    }),
  );
  expect(order).toEqual(Array.from({ length: 50 }, (_, n) => n));
  expect(told.slice(3)).toEqual(['wake']);
});

test('a lease keeps it awake for as long as it is held; releasing it twice takes nobody else’s', async () => {
  const [one, two] = await Promise.all([supervisor.lease('m'), supervisor.lease('m')]);
  one.release();
  one.release();
  await vi.advanceTimersByTimeAsync(3_600_000);
  expect(stateOf()).toBe('running');
  expect(supervisor.leaseNow('m', two.machine)).toBeDefined();
});

test('an image that cannot be woken is reported, its machine is not handed out, and a new one boots', async () => {
  const first = await supervisor.lease('m');
  first.release();
  await vi.advanceTimersByTimeAsync(300_000);
  wake = async () => {
    first.machine.kill();
    throw new MachineError('snapshot-unusable', 'delta-3 is damaged');
  };
  const second = await supervisor.lease('m');
  expect(second.machine).not.toBe(first.machine);
  expect(told.slice(3)).toEqual(['wake', 'boot']);
  expect(warnings.join()).toMatch(/could not be woken: (delta-3 is damaged|killed)/);
});

test('what waits for the machine to run is done once, after those who wait for it', async () => {
  await hibernated();
  const done: string[] = [];
  supervisor.whenAwake('m', () => done.push('act'));
  const lease = await supervisor.lease('m');
  expect(done).toEqual(['act']);
  expect(supervisor.leaseNow('m', lease.machine)).toBeDefined();
});

test('when its owner goes, it is hibernated, calls or not; one that sleeps is left alone', async () => {
  await supervisor.lease('m');
  await supervisor.close();
  expect([stateOf(), told]).toEqual(['hibernated', ['boot', 'pause', 'hibernate carried']]);
  await expect(supervisor.lease('m')).rejects.toMatchObject({ code: 'machine_failed' });
  await supervisor.close();
  expect(told).toHaveLength(3);
});

test('one that is removed while it boots is gone, also when it was up by then; calls that wait are refused', async () => {
  const booting = Promise.withResolvers<void>();
  let machine: RunningMachine | undefined;
  supervisor.define('n', async () => {
    await booting.promise;
    machine = fakeMachine(told, async () => undefined);
    return machine;
  });
  const refused = supervisor.lease('n').catch((error: unknown) => error);
  const removed = supervisor.remove('n');
  booting.resolve();
  await removed;
  expect(await refused).toMatchObject({ code: 'machine_failed' });
  expect(await machine?.gone).toMatchObject({ reason: 'killed' });
  expect(supervisor.has('n')).toBe(false);
});

test('one that is removed is made anew only when all of it is gone', async () => {
  await supervisor.lease('m');
  const cleared = Promise.withResolvers<void>();
  const removed = supervisor.remove('m', () => cleared.promise);
  await vi.advanceTimersByTimeAsync(1_000);
  await expect(supervisor.lease('m')).rejects.toMatchObject({ code: 'machine_failed', message: /is being removed/ });
  // Who wants the same meanwhile waits for it, and clears nothing.
  const again = supervisor.remove('m', () => Promise.reject(new Error('a second time')));
  cleared.resolve();
  await Promise.all([removed, again]);
  expect([supervisor.has('m'), told]).toEqual([false, ['boot']]);
  // What was never known is cleared away all the same.
  let isCleared = false;
  await supervisor.remove('never', async () => {
    isCleared = true;
  });
  expect(isCleared).toBe(true);
});

test('a machine of an earlier life sleeps until it is called', async () => {
  supervisor.adopt(
    'm',
    fakeMachine(told, async () => undefined),
  );
  expect(stateOf()).toBe('hibernated');
  await supervisor.lease('m');
  expect(told).toEqual(['wake']);
});

test('one that keeps ending soon after its boot is left alone for a while: callers, the log and the list say so', async () => {
  const die = async (useful: boolean) => {
    const lease = await supervisor.lease('m');
    lease.release(useful);
    lease.machine.kill();
    await lease.machine.gone;
  };
  for (let n = 0; n < 6; n += 1) await die(false);
  await expect(supervisor.lease('m')).rejects.toMatchObject({
    code: 'machine_failed',
    message: expect.stringMatching(/"m" cannot run now: It ended .* 6 times in a row\. It may start again in 1 s\./),
    data: { cause: 'crash_loop', crashes: 6, retryAfterMs: 1_000 },
  });
  expect(told).toHaveLength(6);
  expect(supervisor.states()).toEqual([
    { key: 'm', state: 'failed', crashLoop: expect.stringMatching(/^6 crashes in a row.*: killed; next start in 1 s/) },
  ]);
  expect(warnings.at(-1)).toMatch(/machine m is in a crash loop: 6 crashes/);
  await vi.advanceTimersByTimeAsync(1_000);
  await die(true);
  expect(supervisor.states()).toEqual([{ key: 'm', state: 'stopped' }]);
  await supervisor.lease('m');
  expect(told).toHaveLength(8);
});

test('machines that are called together are woken a few at a time, in order; one that ended meanwhile is not', async () => {
  const log: Log = { debug() {}, info() {}, warn() {}, error() {}, server() {}, machine() {} };
  const several = new Supervisor({ log, wakesAtOnce: 2 });
  const woken: string[] = [];
  const ends = new Map<string, () => void>();
  const keys = ['a', 'b', 'c', 'd', 'e'];
  const machines = new Map<string, RunningMachine>();
  for (const key of keys) {
    const boot = async () => {
      const machine = fakeMachine([], () => {
        woken.push(key);
        return new Promise((resolve) => ends.set(key, resolve));
      });
      machines.set(key, machine);
      return machine;
    };
    several.define(key, boot, { sleeps: SLEEPS });
    (await several.lease(key)).release();
  }
  await vi.advanceTimersByTimeAsync(300_000);
  const calls = keys.map((key) => several.lease(key));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(woken).toEqual(['a', 'b']);
  const first = machines.get('c');
  first?.kill();
  // It boots instead, for which nobody waits.
  expect((await calls[2])?.machine).not.toBe(first);
  ends.get('b')?.();
  await calls[1];
  await vi.advanceTimersByTimeAsync(0);
  expect(woken).toEqual(['a', 'b', 'd']);
  ends.get('a')?.();
  await vi.advanceTimersByTimeAsync(0);
  for (const key of ['d', 'e']) ends.get(key)?.();
  await Promise.all(calls);
  expect(woken).toEqual(['a', 'b', 'd', 'e']);
});
