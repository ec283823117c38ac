/** Templates in the places of those who wait for them: a real supervisor with a budget, over machines that cost nothing. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Log } from '../../origin/log.ts';
import { Supervisor } from '../../origin/supervisor/supervisor.ts';
import { Templates } from '../../origin/templates.ts';
import type { MachineDriver, MachineEnd, MachineSpec, RunningMachine, ServerProcess } from '../../origin/vm/driver.ts';
import { MachineError } from '../../origin/vm/error.ts';
import { until } from '../support/origin.ts';

const MEMORY_MIB = 100;
const SLEEPS = { pauseAfterMs: 3_600_000, hibernateAfterMs: 3_600_000, stopAfterMs: Number.POSITIVE_INFINITY };
const quiet = () => undefined;
const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet, server: quiet, machine: quiet };

/** What boots, runs or is paused, by folder; and the most that it was together. */
class FakeDriver implements MachineDriver {
  readonly awake = new Set<string>();
  readonly asleep = new Set<string>();
  most = 0;
  templatesBooted = 0;
  /** Templates do not warm up before this. */
  warm: Promise<void> = Promise.resolve();
  /** Why nothing can be hibernated. */
  failure: MachineError | undefined;
  /** Folders whose image is of no use. */
  readonly damaged = new Set<string>();

  async boot(spec: MachineSpec, _progress: unknown, signal?: AbortSignal): Promise<RunningMachine> {
    if (this.awake.has(spec.dir)) throw new MachineError('machine-busy', `${spec.key} runs already`);
    this.#rise(spec.dir);
    this.damaged.delete(spec.dir);
    mkdirSync(spec.dir, { recursive: true });
    if (spec.hostname === 'template') this.templatesBooted += 1;
    await sleep(2);
    if (!signal?.aborted) return this.#machine(spec);
    await sleep(1);
    this.awake.delete(spec.dir);
    throw new MachineError('boot-aborted', 'cancelled');
  }

  isAsleep(dir: string): Promise<boolean> {
    return Promise.resolve(this.asleep.has(dir));
  }

  async copy(from: MachineSpec, to: MachineSpec) {
    await sleep(1);
    if (!this.asleep.has(from.dir) || this.damaged.has(from.dir))
      throw new MachineError('snapshot-unusable', 'damaged');
    mkdirSync(to.dir);
    this.asleep.add(to.dir);
    return { pausedMs: 0, silentMs: 0, memoryBytes: 0, disk: 'shared' as const };
  }

  recall(spec: MachineSpec) {
    return Promise.resolve({ machine: this.#machine(spec), carry: undefined });
  }

  #rise(dir: string): void {
    this.awake.add(dir);
    this.most = Math.max(this.most, this.awake.size);
  }

  #machine({ dir }: MachineSpec): RunningMachine {
    const gone = Promise.withResolvers<MachineEnd>();
    let isGone = false;
    const kill = () => {
      if (isGone) return;
      isGone = true;
      // QEMU takes a moment to end.
      setTimeout(() => {
        this.awake.delete(dir);
        this.asleep.delete(dir);
        gone.resolve({ reason: 'killed', consoleTail: '' });
      }, 1);
    };
    const alive = async () => {
      await sleep(1);
      if (isGone) throw new MachineError('machine-gone', 'gone');
    };
    return {
      accelerator: 'none',
      gone: gone.promise,
      spawn: async () => {
        await alive();
        const exited = Promise.race([this.warm, gone.promise]).then(() => ({ code: 0, signal: null }));
        const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
        return { stdin, stdout, stderr, exited, kill: quiet } satisfies ServerProcess;
      },
      sync: alive,
      stop: async () => {
        kill();
        await gone.promise;
      },
      kill,
      sleep: {
        pause: async () => {
          await alive();
          return 0;
        },
        resume: alive,
        hibernate: async () => {
          await alive();
          if (this.failure) throw this.failure;
          this.awake.delete(dir);
          this.asleep.add(dir);
          return { bytes: 1 };
        },
        wake: async () => {
          this.asleep.delete(dir);
          this.#rise(dir);
          await alive();
        },
      },
    };
  }
}

let folder: string;
let driver: FakeDriver;
let supervisor: Supervisor;
let templates: Templates;
let now = 0;

beforeEach(begin);
afterEach(end);

function begin(): void {
  folder = mkdtempSync(join(tmpdir(), 'moorage-templates-'));
  driver = new FakeDriver();
  supervisor = new Supervisor({ log, memoryMiB: 2 * MEMORY_MIB });
  templates = new Templates({ driver, folder: join(folder, 'templates'), log, now: () => now });
}

async function end(): Promise<void> {
  await supervisor.close();
  rmSync(folder, { recursive: true, force: true });
}

/** A machine of one's own, made after `home`. */
function define(key: string, home: string): void {
  const image = { kernel: home, initrd: '', base: '' };
  const dir = join(folder, key);
  const spec: MachineSpec = { key, dir, image, memoryMiB: MEMORY_MIB, cpus: 1, diskMiB: 1, hostname: key };
  supervisor.define(
    key,
    async (progress, signal) => {
      const made = driver.asleep.has(dir) ? undefined : await templates.make(home, spec, {}, progress, signal);
      return made ?? (await driver.boot(spec, progress, signal));
    },
    { memoryMiB: MEMORY_MIB, sleeps: SLEEPS },
  );
}

const held = async (key: string) => (await supervisor.lease(key)).release();
const refusal = (key: string) => held(key).catch((error: unknown) => error);
const templatesAwake = () => [...driver.awake].filter((dir) => dir.startsWith(join(folder, 'templates')));

test('it boots once for all who wait, in the place of one of them', async () => {
  for (const key of ['a', 'b']) define(key, 'home');
  const [a, b] = await Promise.all(['a', 'b'].map((key) => supervisor.lease(key)));
  expect([driver.templatesBooted, driver.most]).toEqual([1, 2]);
  expect([...driver.awake].map((dir) => basename(dir)).sort()).toEqual(['a', 'b']);
  a?.release();
  b?.release();
});

test('it ends with the last machine that waits for it, which does not go before', async () => {
  driver.warm = new Promise(() => undefined);
  for (const key of ['a', 'b', 'c']) define(key, 'home');
  const refused = ['a', 'b'].map(refusal);
  await until(() => templatesAwake().length === 1);
  await supervisor.remove('a');
  expect(await refused[0]).toMatchObject({ code: 'machine_failed' });
  expect(templatesAwake()).toHaveLength(1);
  const removed = supervisor.remove('b');
  // Who comes now gets another one, when the first has gone.
  driver.warm = Promise.resolve();
  define('d', 'home');
  const later = held('d');
  await removed;
  expect(await refused[1]).toMatchObject({ code: 'machine_failed' });
  await later;
  expect(driver.templatesBooted).toBe(2);
  await supervisor.remove('d');
  await until(() => driver.awake.size === 0);
});

test('it ends when the origin stops, and the origin is not stopped before', async () => {
  driver.warm = new Promise(() => undefined);
  define('a', 'home');
  const refused = refusal('a');
  await until(() => templatesAwake().length === 1);
  await supervisor.close();
  expect(driver.awake.size).toBe(0);
  expect(await refused).toMatchObject({ code: 'machine_failed' });
});

test('where it cannot be made, it has left when the machine boots instead; it is tried again after ten minutes', async () => {
  driver.failure = new MachineError('hibernate-failed', 'no');
  for (const key of ['a', 'b', 'c']) define(key, 'home');
  await held('a');
  expect([driver.templatesBooted, driver.most, [...driver.awake]]).toEqual([1, 1, [join(folder, 'a')]]);
  now += 599_000;
  await held('b');
  expect(driver.templatesBooted).toBe(1);
  driver.failure = undefined;
  now += 1_000;
  await held('c');
  expect([driver.templatesBooted, driver.awake.has(join(folder, 'c'))]).toEqual([2, true]);
});

test('one that is of no use is made anew once, however many find that out', async () => {
  define('a', 'home');
  await held('a');
  const [template = ''] = [...driver.asleep];
  driver.damaged.add(template);
  await supervisor.remove('a');
  for (const key of ['b', 'c']) define(key, 'home');
  await Promise.all(['b', 'c'].map(held));
  expect(driver.templatesBooted).toBe(2);
  expect(readdirSync(join(folder, 'templates'))).toHaveLength(1);
});

test('whoever comes and goes: what is awake fits the budget, and nothing stays behind', async () => {
  const keys = ['a', 'b', 'c', 'd'];
  const move = fc.record({
    key: fc.constantFrom(...keys),
    what: fc.constantFrom('call', 'remove', 'wait', 'damage'),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(move, { maxLength: 25 }), async (moves) => {
      await end();
      begin();
      const calls: Promise<unknown>[] = [];
      const removals: Promise<unknown>[] = [];
      for (const { key, what } of moves) {
        if (what === 'wait') await sleep(3);
        else if (what === 'damage') for (const dir of driver.asleep) driver.damaged.add(dir);
        else if (what === 'remove')
          removals.push(supervisor.remove(key).then(() => rmSync(join(folder, key), { recursive: true, force: true })));
        else {
          if (!supervisor.has(key)) define(key, key < 'c' ? 'one' : 'other');
          calls.push(refusal(key));
        }
      }
      await Promise.all([...calls, ...removals]);
      expect(driver.most).toBeLessThanOrEqual(2);
      await Promise.all(keys.map((key) => supervisor.remove(key)));
      expect([...driver.awake]).toEqual([]);
    }),
    { numRuns: 60 },
  );
});
