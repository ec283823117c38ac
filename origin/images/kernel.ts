/**
 * The guest kernel and the few modules it needs, from the distribution's packages.
 *
 * `kernel/<digest>/` holds `vmlinuz`, `modules/NN-name.ko` (decompressed, numbered in loading order) and `meta.json`.
 * Debian's cloud kernel 6.1 comes first: later ones crash often under software emulation.
 */
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { run } from '../vm/command.ts';
import { MachineError } from '../vm/error.ts';
import { digestOf, ensureBuilt, type Progress } from './cache.ts';
import { dependenciesOf, openPackageSource, unpackPackages } from './debian.ts';

const RECIPE = { kind: 'kernel', version: 1 };
const META_PACKAGES = ['linux-image-cloud-amd64', 'linux-image-virtual', 'linux-image-kvm', 'linux-image-amd64'];

/** What a guest drives, in an order that respects soft dependencies: checksums before the file systems that use them. */
const WANTED_MODULES = [
  'virtio_mmio',
  'virtio_blk',
  'virtio_console',
  'virtio_rng',
  'crc32c_generic',
  'ext4',
  'erofs',
  'overlay',
];

export interface Kernel {
  vmlinuz: string;
  /** Absolute paths in loading order. */
  modules: readonly string[];
  /** Identifies the kernel's build: its package files with their versions. */
  digest: string;
}

/** The kernel, built on first use; afterwards two file reads. Rejects with a MachineError. */
export async function ensureKernel(cacheDir: string, progress: Progress): Promise<Kernel> {
  const folder = await ensureBuilt(
    cacheDir,
    'kernel',
    digestOf(RECIPE),
    (to) => build(cacheDir, to, progress),
    progress,
  );
  const meta = JSON.parse(await readFile(join(folder, 'meta.json'), 'utf8')) as { packages: string[] };
  const modules = (await readdir(join(folder, 'modules'))).sort().map((name) => join(folder, 'modules', name));
  return { vmlinuz: join(folder, 'vmlinuz'), modules, digest: digestOf({ ...RECIPE, packages: meta.packages }) };
}

async function build(cacheDir: string, to: string, progress: Progress): Promise<void> {
  progress('downloading kernel');
  const source = await openPackageSource(cacheDir, 'busybox-static', progress);
  const names = await kernelPackages((name) => dependenciesOf(source, name));
  const unpacked = join(to, 'unpacked');
  const packages = await unpackPackages(source, names, unpacked);
  progress('unpacking kernel modules');
  const release = (
    await readdir(join(unpacked, 'lib/modules')).catch(() => readdir(join(unpacked, 'usr/lib/modules')))
  )[0];
  const image = (await readdir(join(unpacked, 'boot'))).find((name) => name.startsWith('vmlinuz-'));
  if (release === undefined || image === undefined) {
    throw new MachineError('image-build-failed', `no kernel found in the packages ${names.join(', ')}`);
  }
  const files = await moduleFiles(unpacked);
  const builtin = await builtinModules(unpacked, release);
  await mkdir(join(to, 'modules'));
  const loaded = await resolveModules(files, builtin);
  for (const [index, { name, content }] of loaded.entries()) {
    await writeFile(join(to, 'modules', `${String(index).padStart(2, '0')}-${name}.ko`), content);
  }
  await copyFile(join(unpacked, 'boot', image), join(to, 'vmlinuz'));
  await writeFile(join(to, 'meta.json'), JSON.stringify({ packages, release }));
  await rm(unpacked, { recursive: true });
}

/** The packages that hold the kernel and its modules; Debian ships both in one, Ubuntu splits them. */
async function kernelPackages(dependencies: (name: string) => Promise<string[]>): Promise<string[]> {
  for (const meta of META_PACKAGES) {
    const image = (await dependencies(meta)).find((name) => /^linux-image-\d/.test(name));
    if (image === undefined) continue;
    const modules = (await dependencies(image)).filter((name) => /^linux-modules-\d/.test(name));
    return [image, ...modules];
  }
  throw new MachineError(
    'package-unavailable',
    `apt knows none of ${META_PACKAGES.join(', ')}; run "sudo apt-get update" and check /etc/apt/sources.list`,
  );
}

const normalize = (name: string) => name.replaceAll('-', '_');

async function moduleFiles(root: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const match = /^(.+)\.ko(\.xz|\.zst)?$/.exec(entry.name);
    if (match?.[1] && entry.isFile()) files.set(normalize(match[1]), join(entry.parentPath, entry.name));
  }
  return files;
}

async function builtinModules(root: string, release: string): Promise<Set<string>> {
  for (const prefix of ['lib', 'usr/lib']) {
    try {
      const text = await readFile(join(root, prefix, 'modules', release, 'modules.builtin'), 'utf8');
      return new Set(text.split('\n').map((line) => normalize(basename(line, '.ko'))));
    } catch {
      // The other prefix has it.
    }
  }
  return new Set();
}

async function resolveModules(
  files: ReadonlyMap<string, string>,
  builtin: ReadonlySet<string>,
): Promise<{ name: string; content: Buffer }[]> {
  const loaded: { name: string; content: Buffer }[] = [];
  const seen = new Set<string>();
  const visit = async (name: string): Promise<void> => {
    if (seen.has(name) || builtin.has(name)) return;
    seen.add(name);
    const file = files.get(name);
    if (file === undefined) {
      throw new MachineError(
        'image-build-failed',
        `the kernel package has no module "${name}"; machines cannot run on it`,
      );
    }
    const content = await readModule(file);
    for (const dependency of moduleDependencies(content)) await visit(dependency);
    loaded.push({ name, content });
  };
  for (const name of WANTED_MODULES) await visit(name);
  return loaded;
}

/** Names that a module's `.modinfo` section says must be loaded before it. */
export function moduleDependencies(module: Buffer): string[] {
  const key = Buffer.from('\0depends=');
  const at = module.indexOf(key);
  if (at < 0) return [];
  const start = at + key.length;
  const value = module.subarray(start, module.indexOf(0, start)).toString('latin1');
  return value.split(',').filter(Boolean).map(normalize);
}

async function readModule(file: string): Promise<Buffer> {
  if (file.endsWith('.zst')) return zstdDecompressSync(await readFile(file));
  if (!file.endsWith('.xz')) return readFile(file);
  await run('xz', ['-d', '-k', file], { code: 'image-build-failed' });
  return readFile(file.slice(0, -'.xz'.length));
}
