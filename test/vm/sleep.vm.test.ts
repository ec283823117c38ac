/** Sleep on real guests: what goes on after a pause and a hibernation, what is refused, and what a crash leaves. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { defaultCacheDir } from '../../origin/images/cache.ts';
import { ensureMachineImage } from '../../origin/images/machine-image.ts';
import type { MachineSpec, RunningMachine } from '../../origin/vm/driver.ts';
import { MachineError } from '../../origin/vm/error.ts';
import { processStart } from '../../origin/vm/pid.ts';
import { QemuDriver } from '../../origin/vm/qemu.ts';
import type { QemuMachine } from '../../origin/vm/qemu-machine.ts';
import { Snapshot } from '../../origin/vm/snapshot.ts';
import { Server, sleeperSpec } from './sleeper.ts';

const cacheDir = defaultCacheDir();
const quiet = () => undefined;
let folder: string;
let spec: MachineSpec;
let driver: QemuDriver;
let machine: QemuMachine;
let server: Server;

const dir = () => join(folder, 'sleeper');
const pidOfQemu = () => (JSON.parse(readFileSync(join(dir(), 'qemu.pid'), 'utf8')) as { pid: number }).pid;
const fileOf = (kind: string) => {
  const name = readdirSync(join(dir(), 'sleep')).find((found) => found.startsWith(kind));
  return join(dir(), 'sleep', name ?? `no ${kind}`);
};
/** However long the answer takes. */
async function expectRightTime(): Promise<void> {
  const asked = Date.now();
  const time = Number(await server.ask('now'));
  expect(time).toBeGreaterThan(asked - 1_000);
  expect(time).toBeLessThan(Date.now() + 1_000);
}

async function output(on: RunningMachine, script: string): Promise<string> {
  const child = await on.spawn({ argv: ['sh', '-c', script], env: {}, cwd: '/data' });
  child.stderr.resume();
  return Buffer.concat(await child.stdout.toArray()).toString();
}

/** The machine as another life of the agent finds it. */
async function recall(): Promise<QemuMachine> {
  const recalled = await driver.recall(spec);
  if (!recalled) throw new Error('There is no image.');
  return recalled.machine as QemuMachine;
}

/** The hibernated machine as it was when `keep` was called: as often as it is wanted. */
const keep = () => execFileSync('cp', ['-a', '--sparse=always', dir(), join(folder, 'kept')]);
function restore(): void {
  rmSync(dir(), { recursive: true, force: true });
  execFileSync('cp', ['-a', '--sparse=always', join(folder, 'kept'), dir()]);
}

async function end(one: RunningMachine): Promise<void> {
  one.kill();
  await one.gone;
}

beforeAll(async () => {
  if (!inject('guests')) return;
  folder = mkdtempSync(join(tmpdir(), 'moorage-sleep-'));
  spec = sleeperSpec(dir(), await ensureMachineImage(cacheDir, quiet));
  driver = new QemuDriver({ cacheDir });
  machine = await driver.boot(spec, quiet);
  server = await Server.start(machine);
  await output(machine, 'echo precious >/data/note; sync');
});

afterAll(async () => {
  if (machine) await end(machine);
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

describe.runIf(inject('guests'))('a machine', () => {
  test('that is paused does nothing, and goes on with the right time when it is resumed', async () => {
    expect(await server.ask('count')).toBe('1');
    const later = server.ask('later', { ms: 3_000, value: 'rang' });
    expect(await machine.pause()).toBe(0);
    const rang = later.then(() => true);
    const asked = server.ask('count');
    expect(await Promise.race([rang, asked, sleep(1_500, 'silence')])).toBe('silence');
    await machine.resume();
    expect(await Promise.all([asked, later])).toEqual(['2', 'rang']);
    await expectRightTime();
  });

  test('stays awake as long as somebody inside asks for it', async () => {
    const job = await machine.spawn({ argv: ['moorage-hold', '10m', '--', 'cat'], env: {}, cwd: '/' });
    job.stdin.write('holding\n');
    await new Promise((resolve) => job.stdout.once('data', resolve));
    const heldMs = await machine.pause();
    expect(heldMs).toBeGreaterThan(500_000);
    expect(heldMs).toBeLessThanOrEqual(600_000);
    job.stdin.end();
    expect((await job.exited).code).toBe(0);
    expect(await output(machine, 'moorage-hold 1h; ls /run/moorage/holds | wc -l')).toBe('1\n');
    expect(await machine.pause()).toBeGreaterThan(3_000_000);
    // Who puts the whole origin away asks nobody.
    expect(await machine.pause(true)).toBe(0);
    await machine.resume();
    expect(await output(machine, 'rm /run/moorage/holds/*; moorage-hold soon 2>&1; echo $?')).toMatch(
      /usage: .*\n.*\n2\n$/,
    );
  });

  test('that hibernates has no process on the host; woken, its own go on, timers and clock included', async () => {
    const later = server.ask('later', { ms: 200, value: 'rang' });
    await machine.pause();
    const pid = pidOfQemu();
    const first = await machine.hibernate({ session: 's' });
    expect(processStart(pid)).toBeUndefined();
    const asked = server.ask('count');
    await sleep(1_500);
    await machine.wake();
    expect(await Promise.all([asked, later])).toEqual(['3', 'rang']);
    await expectRightTime();
    await machine.pause();
    const second = await machine.hibernate({ session: 's' });
    expect(second.bytes).toBeLessThan(first.bytes / 2);
    await machine.wake();
    expect(await server.ask('count')).toBe('4');
    expect(await output(machine, 'cat /data/note')).toBe('precious\n');
  });

  test('is found asleep by the next agent, with its processes; the same image gives other random numbers each time', async () => {
    await machine.pause();
    await machine.hibernate({ session: 's' });
    keep();
    await end(machine);
    const numbers: string[] = [];
    for (let turn = 0; turn < 2; turn += 1) {
      restore();
      const found = await new QemuDriver({ cacheDir }).recall(spec);
      expect(found?.carry).toEqual({ session: 's' });
      await found?.machine.sleep?.wake();
      const process = found?.machine.processes?.().get(1);
      if (!found || !process) throw new Error('The process is not there.');
      const again = new Server(process);
      expect(await again.ask('count')).toBe('5');
      numbers.push(await again.ask('random'));
      expect(await again.ask('echo', { value: 'x'.repeat(600_000) })).toHaveLength(600_000);
      // An image is resumed at most once.
      expect(await new QemuDriver({ cacheDir }).recall(spec)).toBeUndefined();
      await end(found.machine);
    }
    expect(numbers[0]).not.toBe(numbers[1]);
  });

  test.each<[string, () => void, RegExp]>([
    ['memory file is damaged', () => flip(fileOf('memory')), /memory file is damaged/],
    ['memory file is cut', () => truncateSync(fileOf('memory'), 4096), /memory file has another size/],
    ['memory file is gone', () => rmSync(fileOf('memory')), /memory file is gone/],
    ['changed pages are damaged', () => flip(fileOf('delta')), /delta-\d+ is damaged/],
    ['changed pages are cut', () => truncateSync(fileOf('delta'), 10), /delta-\d+ has another size/],
    ['device state is damaged', () => flip(fileOf('devices')), /devices-\d+ is damaged/],
    ['disk was written to', () => flip(join(dir(), 'disk.ext4')), /disk was changed since/],
    ['QEMU is another one', () => undefined, /another QEMU/],
  ])('whose %s is not resumed, and says why', async (what, damage, reason) => {
    restore();
    damage();
    const disk = statSync(join(dir(), 'disk.ext4'), { bigint: true });
    const other = what.startsWith('QEMU') ? { ...spec, cpus: 2 } : spec;
    const found = (await driver.recall(other))?.machine;
    await expect(found?.sleep?.wake()).rejects.toMatchObject({
      code: 'snapshot-unusable',
      message: expect.stringMatching(reason),
    });
    await found?.gone;
    expect(await driver.recall(spec)).toBeUndefined();
    // The QEMU that was started meanwhile is gone and has changed nothing.
    expect(existsSync(join(dir(), 'qemu.pid'))).toBe(false);
    const { mtimeNs } = statSync(join(dir(), 'disk.ext4'), { bigint: true });
    expect(mtimeNs).toBe(disk.mtimeNs);
  });

  test('is awake before files that are not wanted any more are gone, and falls asleep after', async () => {
    restore();
    const found = await recall();
    const removing = Promise.withResolvers<void>();
    const { sweep } = Snapshot.prototype;
    const spy = vi.spyOn(Snapshot.prototype, 'sweep').mockImplementationOnce(async function (this: Snapshot, keep) {
      await removing.promise;
      await sweep.call(this, keep);
    });
    await found.wake();
    expect(spy).toHaveBeenCalledTimes(1);
    await found.pause();
    const hibernating = found.hibernate('carried');
    // Whoever does not wait has its files removed.
    await Promise.race([hibernating, sleep(1_000)]);
    removing.resolve();
    await hibernating;
    spy.mockRestore();
    await found.wake();
    const process = found.processes().get(1);
    expect(process && (await new Server(process).ask('count'))).toBe('5');
    await end(found);
  });

  test('wakes in the QEMU that waits for it, which until then locks and writes nothing', async () => {
    restore();
    const disk = join(dir(), 'disk.ext4');
    const before = statSync(disk, { bigint: true }).mtimeNs;
    const found = await recall();
    expect(found.standby.waits).toBe(false);
    found.standby.start();
    const waiting = pidOfQemu();
    while (!isReady(waiting)) await sleep(10);
    expect([found.standby.waits, locksOf(disk), statSync(disk, { bigint: true }).mtimeNs]).toEqual([true, 0, before]);
    await found.wake();
    expect([pidOfQemu(), found.standby.waits]).toEqual([waiting, false]);
    expect(locksOf(disk)).toBeGreaterThan(0);
    const process = found.processes().get(1);
    expect(process && (await new Server(process).ask('count'))).toBe('5');
    // It is the machine's own now: awake there is nothing to wait for.
    found.standby.start();
    expect(found.standby.waits).toBe(false);
    await found.pause();
    await found.hibernate('carried');
    expect(processStart(waiting)).toBeUndefined();
    found.standby.start();
    await found.wake();
    expect(process && (await output(found, 'cat /data/note'))).toBe('precious\n');
    await end(found);
  });

  test.each(['at once', 'a while after'])(
    'wakes without the QEMU that waits when that was killed, %s',
    async (when) => {
      restore();
      const found = await recall();
      found.standby.start();
      const waiting = pidOfQemu();
      while (!isReady(waiting)) await sleep(10);
      process.kill(waiting, 'SIGKILL');
      if (when !== 'at once') {
        while (found.standby.waits) await sleep(10);
        // One that died is not started again and again.
        found.standby.start();
        expect(found.standby.waits).toBe(false);
      }
      await found.wake();
      expect(pidOfQemu()).not.toBe(waiting);
      const server = found.processes().get(1);
      expect(server && (await new Server(server).ask('count'))).toBe('5');
      await end(found);
    },
  );

  test('whose image is damaged or discarded has no QEMU that waits', async () => {
    restore();
    flip(fileOf('delta'));
    const damaged = await recall();
    damaged.standby.start();
    const first = pidOfQemu();
    while (damaged.standby.waits) await sleep(10);
    await expect(damaged.wake()).rejects.toMatchObject({ code: 'snapshot-unusable', message: /delta-\d+ is damaged/ });
    await damaged.gone;
    // What changed while it waited is seen when the machine wakes.
    restore();
    const changed = await recall();
    changed.standby.start();
    while (!isReady(pidOfQemu())) await sleep(10);
    flip(fileOf('memory'));
    await expect(changed.wake()).rejects.toMatchObject({
      code: 'snapshot-unusable',
      message: /memory file is damaged/,
    });
    await changed.gone;
    restore();
    const discarded = await recall();
    discarded.standby.start();
    const second = pidOfQemu();
    await end(discarded);
    expect([first, second].map(processStart)).toEqual([undefined, undefined]);
    expect(await driver.recall(spec)).toBeUndefined();
  });

  test.each([
    ['torn', (path: string) => truncateSync(path, 100)],
    ['damaged', flip],
  ])('whose description is %s is not even tried, and boots from its disk', async (_what, damage) => {
    restore();
    damage(fileOf('image.json'));
    await expect(driver.recall(spec)).rejects.toMatchObject({ code: 'snapshot-unusable', message: /torn/ });
  });

  test('that boots again discards the image first, and has what was written before it slept', async () => {
    restore();
    const steps: string[] = [];
    const fresh = await driver.boot(spec, (text) => steps.push(text));
    expect(steps).toContain('discarded what it had in memory when it slept');
    expect(await output(fresh, 'cat /data/note')).toBe('precious\n');
    await end(fresh);
    expect(await driver.recall(spec)).toBeUndefined();
  });

  // Just before: QEMU is told what it waits for, loading, the marker's removal, going on; saving devices, writing the image,
  // ending QEMU, sweeping.
  test.each([
    ['migrate-set-capabilities', 5],
    ['migrate-incoming', 5],
    ['consume', 5],
    ['cont', undefined],
    ['xen-save-devices-state', undefined],
    ['seal', undefined],
    ['kill', 6],
    ['sweep', 6],
    ['standby is over', 6],
  ])('whose agent is killed before "%s" wakes where it was, or boots cold', async (step, counted) => {
    restore();
    const left = await killedBefore(step);
    expect(await driver.isAsleep(dir())).toBe(counted !== undefined);
    expect(processStart(left)).toBeUndefined();
    if (counted === undefined) return;
    const found = await recall();
    await found.wake();
    const process = found.processes().get(1);
    expect(process && (await new Server(process).ask('count'))).toBe(String(counted));
    expect(await output(found, 'cat /data/note')).toBe('precious\n');
    await end(found);
  });

  // Just before each: making its folder, sharing memory, taking devices and (the guest stands still) its disk, going on,
  // writing pages, marker, record and name; and when all is done.
  test.each([
    'its folder',
    'the shared memory',
    'xen-save-devices-state',
    'cont',
    'the changed pages',
    'its marker',
    'its record',
    'its name',
    'whole',
  ])(
    'whose agent is killed while it is copied (%s) boots cold beside what both left; the copy is whole or not there',
    async (step) => {
      restore();
      const left = await killedBefore(step, 'dies-copying');
      expect(processStart(left)).toBeDefined();
      await driver.sweep(folder);
      expect(await driver.isAsleep(dir())).toBe(false);
      expect(processStart(left)).toBeUndefined();
      expect(readdirSync(folder).filter((name) => name.includes('copy'))).toEqual(
        step === 'whole' ? ['sleeper-copy'] : [],
      );
      machine = await driver.boot(spec, quiet);
      expect(await output(machine, 'cat /data/note')).toBe('precious\n');
      expect(readdirSync(join(dir(), 'sleep'))).toHaveLength(1);
      await end(machine);
      if (step !== 'whole') return;
      const copy = await copied();
      expect(await output(copy, 'cat /data/note /proc/sys/kernel/hostname')).toBe('precious\ncopy\n');
      await end(copy);
      rmSync(join(folder, 'sleeper-copy'), { recursive: true });
    },
  );

  test('whose agent is killed while it sleeps for a moment, to be copied, wakes where it was', async () => {
    await killedBefore('settled', 'dies-copying');
    expect(await driver.isAsleep(dir())).toBe(true);
    const found = await driver.recall(spec);
    expect(found?.carry).toBe('its own');
    await found?.machine.sleep?.wake();
    const process = found?.machine.processes?.().get(1);
    expect(process && (await new Server(process).ask('count'))).toBe('2');
    await driver.sweep(folder);
    if (found) await end(found.machine);
  });

  test('that is a template is copied whole or not at all, at whatever step its agent is killed, and stays as it is', async () => {
    restore();
    const script = new URL('./fixtures/dies-copying.ts', import.meta.url).pathname;
    const outcomes: boolean[] = [];
    for (let steps = 0, isOver = false; !isOver; steps += 1) {
      const agent = spawn(process.execPath, [script, dir(), String(steps)], {
        stdio: ['ignore', 'inherit', 'inherit'],
      });
      const [code, signal] = await once(agent, 'exit');
      isOver = signal === null;
      if (isOver) expect(code).toBe(0);
      await driver.sweep(folder);
      const found = readdirSync(folder).filter((name) => name.includes('copy'));
      outcomes.push(found.length > 0);
      if (found.length === 0) continue;
      const copy = await copied();
      expect(await output(copy, 'cat /data/note /proc/sys/kernel/hostname')).toBe('precious\ncopy\n');
      await end(copy);
      rmSync(join(folder, 'sleeper-copy'), { recursive: true });
    }
    // Dozens of times there is none, and from some step on it is there.
    expect(outcomes.length).toBeGreaterThan(10);
    expect(outcomes).toEqual([...outcomes].sort((a, b) => Number(a) - Number(b)));
    expect(outcomes.slice(-2)).toEqual([true, true]);
    const found = await recall();
    await found.wake();
    const first = found.processes().get(1);
    expect(first && (await new Server(first).ask('count'))).toBe('5');
    await end(found);
    machine = await driver.boot(spec, quiet);
  });

  test('that is not asleep is tidied up when an agent starts, but for its disk', async () => {
    await expect(new QemuDriver({ cacheDir }).isAsleep(dir())).rejects.toMatchObject({ code: 'machine-busy' });
    const left = join(folder, 'left');
    mkdirSync(join(left, 'sleep'), { recursive: true });
    for (const name of ['disk.ext4', 'disk.0.tmp', 'sleep/memory-3.ram', 'sleep/image.json.tmp'])
      writeFileSync(join(left, name), 'x');
    expect(await driver.isAsleep(left)).toBe(false);
    expect(readdirSync(left, { recursive: true }).sort()).toEqual(['disk.ext4', 'sleep']);
    expect(await driver.isAsleep(join(folder, 'never'))).toBe(false);
  });

  test('whose QEMU is killed while it hibernates is gone, and so is half an image', async () => {
    await machine.pause();
    const pid = pidOfQemu();
    const failed = expect(machine.hibernate(undefined)).rejects.toMatchObject({ code: 'hibernate-failed' });
    process.kill(pid, 'SIGKILL');
    await failed;
    await machine.gone;
    expect(await driver.recall(spec)).toBeUndefined();
  });

  test('whose QEMU is killed while it wakes is gone; its image is not tried again', async () => {
    restore();
    const found = await recall();
    const failed = expect(found.wake()).rejects.toBeInstanceOf(MachineError);
    while (!existsSync(join(dir(), 'qemu.pid'))) await sleep(1);
    process.kill(pidOfQemu(), 'SIGKILL');
    await failed;
    await found.gone;
    expect(await driver.recall(spec)).toBeUndefined();
  });
});

/** Whether this QEMU has its disk open, and so all that it waits with. */
const isReady = (pid: number): boolean =>
  readdirSync(`/proc/${pid}/fd`).some((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith('/disk.ext4');
    } catch {
      // Closed meanwhile.
      return false;
    }
  });

/** Locks that anybody has on a file. */
function locksOf(path: string): number {
  const { ino } = statSync(path);
  return readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`:${ino} `)).length;
}

/** Changes one bit in the middle, and not the time of the last change where the disk is meant to show it. */
function flip(path: string): void {
  const data = readFileSync(path);
  // A memory file is mostly holes: something that is not.
  const at = data.findIndex((byte, index) => index >= data.length / 4 && byte !== 0);
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.from([(data[at] ?? 0) ^ 1]), 0, 1, at);
}

/** Runs an agent that kills itself there. Returns the QEMU that was the folder's last. */
async function killedBefore(step: string, fixture = 'falls-asleep'): Promise<number> {
  const script = new URL(`./fixtures/${fixture}.ts`, import.meta.url).pathname;
  const agent = spawn(process.execPath, [script, dir(), step], { stdio: ['ignore', 'inherit', 'inherit'] });
  const [, signal] = await once(agent, 'exit');
  expect(signal).toBe('SIGKILL');
  // The last step comes after QEMU's end.
  return existsSync(join(dir(), 'qemu.pid')) ? pidOfQemu() : 0;
}

/** The copy, awake. */
async function copied(): Promise<QemuMachine> {
  const found = await driver.recall({ ...spec, key: 'copy', dir: join(folder, 'sleeper-copy'), hostname: 'copy' });
  if (!found) throw new Error('There is no copy.');
  await found.machine.sleep?.wake();
  return found.machine as QemuMachine;
}
