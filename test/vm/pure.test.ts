import { mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { defaultCacheDir, digestFolder, ensureBuilt } from '../../origin/images/cache.ts';
import { moduleDependencies } from '../../origin/images/kernel.ts';
import { deniedBy } from '../../origin/vm/accelerator.ts';
import { FIRST_FILE, inheritedFiles, qemuArguments, tscKhzFrom } from '../../origin/vm/arguments.ts';
import { coalesce } from '../../origin/vm/coalesce.ts';
import { RingBuffer } from '../../origin/vm/console.ts';

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-test-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('the console keeps the newest bytes, without control sequences', () => {
  const ring = new RingBuffer(8);
  ring.push(Buffer.from('0123456'));
  ring.push(Buffer.from('789ab'));
  expect(ring.tail(100)).toBe('456789ab');
  expect(ring.tail(3)).toBe('9ab');
  ring.push(Buffer.from('a much longer text\x1b[2J\x07'));
  expect(ring.tail(100)).toBe('ext');
});

test('a run covers only the calls made before it started, and shares it among those that waited', async () => {
  const gates: (() => void)[] = [];
  const commit = coalesce(() => new Promise((resolve) => gates.push(resolve)));
  const first = commit();
  const second = commit();
  const third = commit();
  expect(gates).toHaveLength(1);
  gates[0]?.();
  await first;
  await new Promise(setImmediate);
  expect(gates).toHaveLength(2);
  const fourth = commit();
  gates[1]?.();
  await Promise.all([second, third]);
  await new Promise(setImmediate);
  expect(gates).toHaveLength(3);
  gates[2]?.();
  await fourth;
});

test('a failed run fails its own callers only', async () => {
  let runs = 0;
  const commit = coalesce(async () => {
    runs += 1;
    if (runs === 1) throw new Error('lost');
  });
  const first = commit();
  const second = commit();
  await expect(first).rejects.toThrow('lost');
  await expect(second).resolves.toBeUndefined();
});

test.each([
  ['model name\t: Some CPU @ 2.60GHz\ncpu MHz\t\t: 800.000\n', 2_600_000],
  ['model name\t: AMD EPYC\ncpu MHz\t\t: 2596.146\n', 2_596_146],
  ['', undefined],
])('the counter frequency of %j', (cpuinfo, khz) => expect(tscKhzFrom(cpuinfo)).toBe(khz));

test('no path of the host is in the command line, so none can smuggle options into it', () => {
  const spec = {
    key: 'k',
    dir: '/d',
    image: { kernel: '/k', initrd: '/i', base: '/b,read-only=off', app: '/a' },
    memoryMiB: 256,
    cpus: 1,
    diskMiB: 64,
    hostname: 'h',
  };
  const files = inheritedFiles(spec, '/d/sleep/m');
  const args = qemuArguments({
    spec,
    accelerator: 'kvm',
    disk: 'disk.ext4',
    machineId: '',
    tscKhz: undefined,
    readOnlyMemory: false,
  });
  const disks = args.filter((_, index) => args[index - 1] === '-blockdev').map((json) => JSON.parse(json) as object);
  const set = (path: string) => files.indexOf(path);
  expect(disks).toMatchObject([
    { 'node-name': 'base', 'read-only': true, file: { filename: `/dev/fdset/${set('/b,read-only=off')}` } },
    { 'node-name': 'app', 'read-only': true, file: { filename: `/dev/fdset/${set('/a')}` } },
    { 'node-name': 'data', file: { filename: 'disk.ext4' } },
  ]);
  expect(args).toContain(`/proc/self/fd/${FIRST_FILE + set('/k')}`);
  expect(args).toContain(`fd=${FIRST_FILE + set('/a')},set=${set('/a')}`);
  expect(args).toContain('-nodefaults');
  expect(args.join(' ')).not.toContain('netdev');
});

test('the dependencies of a module come from its modinfo section', () => {
  const module = Buffer.from('\x7fELF…\0license=GPL\0depends=libcrc32c,virtio-ring\0name=x\0', 'latin1');
  expect(moduleDependencies(module)).toEqual(['libcrc32c', 'virtio_ring']);
  expect(moduleDependencies(Buffer.from('\0depends=\0'))).toEqual([]);
});

test('the cache is where the environment says', () => {
  expect(defaultCacheDir({ MOORAGE_CACHE: '/c' })).toBe('/c');
  expect(defaultCacheDir({ XDG_CACHE_HOME: '/x' })).toBe('/x/moorage');
  expect(defaultCacheDir({})).toMatch(/\.cache\/moorage$/);
});

test('a folder digest follows contents, not times', () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, 'a'), 'one');
  const before = digestFolder(folder);
  utimesSync(join(folder, 'a'), 0, 0);
  expect(digestFolder(folder)).toBe(before);
  writeFileSync(join(folder, 'a'), 'two');
  expect(digestFolder(folder)).not.toBe(before);
});

test('concurrent builders of one digest build it once', async () => {
  const root = temporaryFolder();
  let builds = 0;
  const build = async (to: string) => {
    builds += 1;
    writeFileSync(join(to, 'done'), '');
  };
  const all = await Promise.all([1, 2, 3].map(() => ensureBuilt(root, 'thing', 'digest', build, () => undefined)));
  expect(new Set(all).size).toBe(1);
  expect(builds).toBe(1);
});

test('a failed build leaves nothing, and the next one succeeds', async () => {
  const root = temporaryFolder();
  const failing = ensureBuilt(
    root,
    'thing',
    'd',
    () => Promise.reject(new Error('no')),
    () => undefined,
  );
  await expect(failing).rejects.toThrow('no');
  await expect(
    ensureBuilt(
      root,
      'thing',
      'd',
      async () => undefined,
      () => undefined,
    ),
  ).resolves.toBe(join(root, 'thing/d'));
});

test('who may not open /dev/kvm is told what would help: a group, where a group may', () => {
  expect(deniedBy(0o20660)).toMatch(/join its group/);
  expect(deniedBy(0o20600)).toMatch(/for root alone.*chgrp/);
});
