/** Copies of machines at the level of their files: what is shared, and what a crash leaves at every step. */
import { AsyncLocalStorage } from 'node:async_hooks';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { copyAsleep, copyRunning, type Parent, sweepUnfinished } from '../../origin/vm/copy.ts';
import { applyDelta } from '../../origin/vm/delta.ts';
import { diskPath } from '../../origin/vm/disk.ts';
import type { CopyOptions } from '../../origin/vm/driver.ts';
import type { Run } from '../../origin/vm/guest-memory.ts';
import { type Manifest, type MappedMemory, Snapshot } from '../../origin/vm/snapshot.ts';
import { TakenPages } from '../../origin/vm/taken-pages.ts';

/** After so many changes to the file system nothing happens any more to whoever lives in it, as after kill -9. */
interface Life {
  left: number;
  readonly died: PromiseWithResolvers<void>;
}
const lives = vi.hoisted(() => ({ current: undefined as undefined | { getStore(): Life | undefined } }));
const life = new AsyncLocalStorage<Life>();
lives.current = life;

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const mortal =
    <A extends unknown[], R>(act: (...args: A) => Promise<R>) =>
    (...args: A): Promise<R> => {
      const mine = lives.current?.getStore();
      if (!mine || mine.left-- > 0) return act(...args);
      mine.died.resolve();
      return new Promise<R>(() => undefined);
    };
  const { rename, link, mkdir, writeFile, copyFile, open, rm } = real;
  return {
    ...real,
    rename: mortal(rename),
    link: mortal(link),
    mkdir: mortal(mkdir as (path: string) => Promise<undefined>),
    writeFile: mortal(writeFile as (path: string) => Promise<void>),
    copyFile: mortal(copyFile as (from: string, to: string) => Promise<void>),
    open: mortal(open as (path: string) => ReturnType<typeof open>),
    rm: mortal(rm as (path: string) => Promise<void>),
  };
});

const PAGE = 4096;
const BYTES = 1024 * 1024;
let folder: string;
let memory: Buffer;
const from = () => ({ dir: join(folder, 'parent'), fingerprint: 'f' });
const to = (name: string) => ({ dir: join(folder, name), fingerprint: 'g', memoryMode: 0o600 });
const options: CopyOptions = {
  carry: () => ['carried'],
  keep: () => [7],
  isIdle: false,
  ownCarry: () => undefined,
  files: { 'fork.json': '{}' },
};

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'moorage-copy-'));
  memory = Buffer.alloc(BYTES, 1);
  await hibernated();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A machine that sleeps, whose disk and memory are a few bytes. */
async function hibernated(): Promise<Manifest> {
  const { dir, fingerprint } = from();
  mkdirSync(join(dir, 'sleep'), { recursive: true });
  writeFileSync(diskPath(dir), 'disk');
  const snapshot = new Snapshot(dir, diskPath(dir));
  writeFileSync(snapshot.path('devices-1'), 'devices');
  const guest = { memory: guestOf([[0, BYTES]]), mapped: { number: 0, path: '' }, changed: [[0, BYTES]] as Run[] };
  const files = await snapshot.write(1, { ...guest, bytes: BYTES });
  return await snapshot.complete(1, files, { fingerprint, channel: undefined, carry: 'mine' });
}

const guestOf = (changed: readonly Run[]) => ({
  read: (offset: number, target: Buffer) => void memory.copy(target, 0, offset),
  changed: () => changed,
  close: () => undefined,
});

/** The same machine awake, with two pages changed. `told` hears what is done to it. */
async function awake(told: string[] = []): Promise<Parent> {
  const { dir } = from();
  const snapshot = new Snapshot(dir, diskPath(dir));
  const manifest = await snapshot.manifest();
  const mapped: MappedMemory = { number: 1, path: snapshot.path('memory-1.ram'), sealed: manifest.memory };
  memory.fill(2, PAGE, 3 * PAGE);
  return {
    memory: () => guestOf([[PAGE, 2 * PAGE]]),
    disk: diskPath(dir),
    mapped,
    memoryBytes: BYTES,
    silence: async () => void told.push('silence'),
    stop: async () => void told.push('stop'),
    saveDevices: async () => {
      const path = snapshot.path('devices-9');
      writeFileSync(path, 'devices');
      return path;
    },
    channel: () => ({ streams: [7], lastStream: 7, lastControl: 1 }),
    goOn: async () => void told.push('go on'),
  };
}

/** What QEMU would have in memory after it woke from this folder. */
async function wokenFrom({ dir, fingerprint }: { dir: string; fingerprint: string }): Promise<Buffer> {
  const snapshot = new Snapshot(dir, diskPath(dir));
  const manifest = await snapshot.open(fingerprint);
  const { delta } = await snapshot.read(manifest);
  expect(await snapshot.faultOf(manifest)).toBeUndefined();
  const found = readFileSync(join(dir, 'sleep', manifest.memory.name));
  applyDelta(delta, { write: (offset: number, data: Buffer) => void data.copy(found, offset) });
  return found;
}

test('a copy of a running machine shares its memory file and has its changes, its disk, and what was asked for', async () => {
  const told: string[] = [];
  const cost = await copyRunning(await awake(told), to('child'), options);
  expect(told).toEqual(['silence', 'stop', 'go on']);
  expect(cost.memoryBytes).toBeLessThan(3 * PAGE);
  const sleep = join(folder, 'child/sleep');
  const [own, shared] = [statSync(join(sleep, 'memory-1.ram')), statSync(join(folder, 'parent/sleep/memory-1.ram'))];
  expect([own.ino, own.nlink]).toEqual([shared.ino, 2]);
  expect((await wokenFrom(to('child'))).equals(memory)).toBe(true);
  const { carry, copy } = await new Snapshot(to('child').dir, '').manifest();
  expect([carry, copy]).toEqual([['carried'], { keep: [7] }]);
  expect(readFileSync(diskPath(to('child').dir), 'utf8')).toBe('disk');
  expect(readFileSync(join(folder, 'child/fork.json'), 'utf8')).toBe('{}');
  // The memory file was linked, not written: it is trusted without being read.
  expect((await wokenFrom(from())).subarray(0, PAGE).equals(memory.subarray(0, PAGE))).toBe(true);
});

test('a machine that booted on an empty memory file gives its copy one of its own', async () => {
  const parent = await awake();
  const booted: Parent = {
    ...parent,
    mapped: { ...parent.mapped, path: join(folder, 'empty') },
    memory: () => guestOf([[0, BYTES]]),
  };
  writeFileSync(join(folder, 'empty'), '');
  delete (booted.mapped as { sealed?: unknown }).sealed;
  expect((await copyRunning(booted, to('child'), options)).memoryBytes).toBeGreaterThanOrEqual(BYTES);
  expect((await wokenFrom(to('child'))).equals(memory)).toBe(true);
  expect(readdirSync(join(folder, 'child/sleep')).sort()).toEqual([
    'delta-2',
    'devices-2',
    'image.json',
    'memory-2.ram',
  ]);
});

test('a disk is copied before the machine stands still, and again when it was written to since', async () => {
  const making = diskPath(join(folder, '.child.making'));
  const parent = await awake();
  const found: string[] = [];
  const stop = async () => void found.push(readFileSync(making, 'utf8'));
  await copyRunning({ ...parent, stop }, to('child'), options);
  rmSync(to('child').dir, { recursive: true });
  const silence = async () => writeFileSync(parent.disk, 'last');
  await copyRunning({ ...parent, silence, stop }, to('child'), options);
  found.push(readFileSync(diskPath(to('child').dir), 'utf8'));
  expect(found).toEqual(['disk', 'disk', 'last']);
});

test('copies of one that sleeps share everything but the disk, and it stays as it is', async () => {
  for (const name of ['one', 'two']) await copyAsleep(from(), to(name), { files: {} });
  expect(statSync(join(folder, 'parent/sleep/memory-1.ram')).nlink).toBe(3);
  const ids = ['one', 'two'].map((name) => readFileSync(join(folder, name, 'machine-id'), 'utf8'));
  expect(new Set(ids).size).toBe(2);
  for (const place of [from(), to('one'), to('two')]) expect((await wokenFrom(place)).equals(memory)).toBe(true);
  await expect(copyAsleep({ ...from(), fingerprint: 'other' }, to('three'), { files: {} })).rejects.toMatchObject({
    code: 'snapshot-unusable',
  });
  expect(existsSync(to('three').dir)).toBe(false);
});

test('there is no copy over a machine that is there, and the machine goes on when a copy fails', async () => {
  mkdirSync(to('child').dir);
  await expect(copyRunning(await awake(), to('child'), options)).rejects.toMatchObject({ code: 'fork-failed' });
  const told: string[] = [];
  const parent: Parent = { ...(await awake(told)), saveDevices: () => Promise.reject(new Error('no space')) };
  await expect(copyRunning(parent, to('other'), options)).rejects.toMatchObject({
    code: 'fork-failed',
    message: /no space/,
  });
  expect(told).toEqual(['silence', 'stop', 'go on']);
  expect(readdirSync(folder).sort()).toEqual(['child', 'parent']);
});

test.each(['running', 'asleep'])(
  'a crash at any step of a copy of one that is %s leaves no copy or a whole one',
  async (how) => {
    let whole = 0;
    for (let steps = 0; whole < 2; steps += 1) {
      const parent = await awake();
      const mine: Life = { left: steps, died: Promise.withResolvers() };
      const copy = () =>
        how === 'running' ? copyRunning(parent, to('child'), options) : copyAsleep(from(), to('child'), options);
      await Promise.race([life.run(mine, copy), mine.died.promise]);
      await sweepUnfinished(folder);
      expect(readdirSync(folder).filter((name) => name !== 'child')).toEqual(['parent']);
      if (existsSync(to('child').dir)) {
        whole += 1;
        const expected = how === 'running' ? memory : Buffer.alloc(BYTES, 1);
        expect((await wokenFrom(to('child'))).equals(expected)).toBe(true);
        expect(existsSync(join(folder, 'child/fork.json'))).toBe(true);
      }
      expect((await wokenFrom(from())).equals(Buffer.alloc(BYTES, 1))).toBe(true);
      rmSync(to('child').dir, { recursive: true, force: true });
    }
  },
);

test('pages that were taken read as the guest’s memory does, whatever piece is asked for', () => {
  const size = 64 * PAGE;
  const base = join(folder, 'base');
  const bytes = Buffer.alloc(size, 3);
  writeFileSync(base, bytes.subarray(0, size / 2));
  bytes.fill(0, size / 2);
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.nat(63), { maxLength: 20 }),
      fc.nat(size - 1),
      fc.integer({ min: 1, max: 10 * PAGE }),
      (pages, offset, length) => {
        const guest = Buffer.from(bytes);
        const runs = pages.sort((a, b) => a - b).map((page): Run => [page * PAGE, PAGE]);
        for (const [at] of runs) guest.fill(4 + at / PAGE, at, at + PAGE);
        const seen = { read: (at: number, target: Buffer) => void guest.copy(target, 0, at) };
        const taken = new TakenPages(seen, runs, base, Buffer.alloc(0));
        const target = Buffer.alloc(Math.min(length, size - offset));
        taken.read(offset, target);
        taken.close();
        expect(target.equals(guest.subarray(offset, offset + target.length))).toBe(true);
      },
    ),
  );
});
