/**
 * Files from the host distribution's own packages, without installing anything and without root: apt picks, downloads
 * and verifies them, dpkg unpacks them into a folder.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findTool, run } from '../vm/command.ts';
import { MachineError } from '../vm/error.ts';
import type { Progress } from './cache.ts';

const UNSUPPORTED =
  'images are built from Debian or Ubuntu packages, and this host has no apt; use "runtime": "process" or "url" here';

/** Access to apt with the options under which it works here. */
export interface PackageSource {
  options: readonly string[];
}

/**
 * Finds out how to ask apt: with the host's package lists, or, where those are missing or stale, with private lists
 * kept in the cache. Rejects with `host-unsupported` or `package-unavailable`.
 */
export async function openPackageSource(cacheDir: string, probe: string, progress: Progress): Promise<PackageSource> {
  if ((await findTool('apt-get')) === undefined || (await findTool('dpkg')) === undefined) {
    throw new MachineError('host-unsupported', UNSUPPORTED);
  }
  const unsandboxed = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
  if (await candidateExists(probe, unsandboxed)) return { options: unsandboxed };
  const state = join(cacheDir, 'apt');
  await mkdir(join(state, 'lists', 'partial'), { recursive: true });
  await mkdir(join(state, 'cache', 'archives', 'partial'), { recursive: true });
  const options = [...unsandboxed, '-o', `Dir::State::lists=${state}/lists`, '-o', `Dir::Cache=${state}/cache`];
  progress('reading package lists');
  await run('apt-get', [...options, 'update'], { code: 'package-unavailable', timeoutMs: 300_000 });
  return { options };
}

async function candidateExists(name: string, options: readonly string[]): Promise<boolean> {
  try {
    await run('apt-get', [...options, 'download', '--print-uris', name], { code: 'package-unavailable' });
    return true;
  } catch {
    return false;
  }
}

/** Names of the packages that `name` depends on directly; empty when apt does not know it. */
export async function dependenciesOf(source: PackageSource, name: string): Promise<string[]> {
  let text: string;
  try {
    text = await run('apt-cache', [...source.options, 'depends', '--no-recommends', '--no-suggests', name], {
      code: 'package-unavailable',
    });
  } catch {
    return [];
  }
  return [...text.matchAll(/^\s*\|?Depends: (\S+)$/gm)]
    .map((match) => match[1] ?? '')
    .filter((dep) => !dep.startsWith('<'));
}

/** Downloads packages and unpacks them into `target`; resolves with the file names, which hold the versions. */
export async function unpackPackages(
  source: PackageSource,
  names: readonly string[],
  target: string,
): Promise<string[]> {
  const folder = await mkdtemp(`${target}-debs-`);
  try {
    await run('apt-get', [...source.options, 'download', ...names], {
      code: 'package-unavailable',
      cwd: folder,
      timeoutMs: 600_000,
    });
    const archives = (await readdir(folder)).filter((name) => name.endsWith('.deb')).sort();
    await mkdir(target, { recursive: true });
    for (const archive of archives) {
      await run('dpkg', ['-x', join(folder, archive), target], { code: 'image-build-failed' });
    }
    return archives;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** One package as it was used. */
export interface DebianPackage {
  /** File name of the archive: name, version, architecture. */
  file: string;
  sha256: string;
}

/**
 * Unpacks packages (`name` or `name=version`) with all that they depend on into `target`, as if nothing were there yet;
 * their maintainer scripts do not run. Rejects with `package-unavailable`, or `image-build-failed`.
 */
export async function unpackWithDependencies(
  source: PackageSource,
  names: readonly string[],
  target: string,
): Promise<DebianPackage[]> {
  const folder = await mkdtemp(`${target}-apt-`);
  try {
    // Nothing is installed in the eyes of this status, so apt names everything.
    await writeFile(join(folder, 'status'), '');
    await mkdir(join(folder, 'archives', 'partial'), { recursive: true });
    const options = [`Dir::State::status=${folder}/status`, `Dir::Cache=${folder}`, 'Debug::NoLocking=true'];
    const flags = [...source.options, ...options.flatMap((option) => ['-o', option]), '--no-install-recommends'];
    await run('apt-get', [...flags, '-qq', '-y', '--download-only', 'install', ...names], {
      code: 'package-unavailable',
      timeoutMs: 900_000,
    });
    const files = (await readdir(join(folder, 'archives'))).filter((name) => name.endsWith('.deb')).sort();
    await mkdir(target, { recursive: true });
    const packages: DebianPackage[] = [];
    for (const file of files) {
      const path = join(folder, 'archives', file);
      await run('dpkg', ['-x', path, target], { code: 'image-build-failed' });
      packages.push({
        file,
        sha256: createHash('sha256')
          .update(await readFile(path))
          .digest('hex'),
      });
    }
    return packages;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
