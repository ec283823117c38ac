/**
 * What is in the image cache, and the removal of what nobody uses: no configured server and no machine of any state folder
 * that shares the cache, for as long as the grace is.
 *
 * Invariant: a folder is moved away under the lock of its kind, after its last use was read under that lock. Whoever uses an
 * older folder notes that under the same lock first (`ensureBuilt`), so nobody is left with a path to nothing.
 */
import { randomUUID } from 'node:crypto';
import { lstat, mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MachineError } from '../vm/error.ts';
import { MIN_GRACE_MS, sweep, withLock } from './cache.ts';
import { type Users, usersIn } from './uses.ts';

const KINDS = [
  'kernel',
  'userland',
  'initrd',
  'base',
  'system',
  'app',
  'npm',
  'pip',
  'oci',
  'oci-name',
  'fakeroot',
] as const;
type Kind = (typeof KINDS)[number];

/** Images stay this long after their last use unless told otherwise: a server that is taken out and put back costs nothing. */
export const DEFAULT_GRACE_MS = 7 * 86_400_000;
/** A builder may hold the lock of its kind for long; its garbage is for the next time. */
const LOCK_MS = 1_000;

export interface CachedImage {
  readonly kind: Kind;
  readonly digest: string;
  /** What it was made of, for people; empty where its digest is all there is. */
  readonly what: string;
  readonly bytes: number;
  /** Milliseconds since the epoch. */
  readonly lastUse: number;
  /** `STATE-FOLDER MACHINE`, sorted. */
  readonly usedBy: readonly string[];
}

/** Everything in the cache, the largest first. */
export async function listImages(cacheDir: string, now: number): Promise<CachedImage[]> {
  const users = await usersIn(cacheDir, DEFAULT_GRACE_MS, now);
  const images = [];
  for (const { kind, digest, folder, lastUse } of await foldersIn(cacheDir)) {
    const usedBy = [...(users.get(`${kind}/${digest}`) ?? [])].sort();
    images.push({ kind, digest, what: await describe(kind, folder), bytes: await sizeOf(folder), lastUse, usedBy });
  }
  return images.sort((a, b) => b.bytes - a.bytes);
}

export interface PruneOptions {
  readonly graceMs: number;
  readonly now: number;
  /** Removes at most so many. */
  readonly limit?: number;
}

/** Removes what nobody uses, and what builders that died have left. Resolves with what was removed. */
export async function pruneImages(
  cacheDir: string,
  options: PruneOptions,
): Promise<{ removed: string[]; bytes: number }> {
  const graceMs = Math.max(options.graceMs, MIN_GRACE_MS);
  const { now, limit = Number.POSITIVE_INFINITY } = options;
  await sweep(join(cacheDir, 'building'));
  const removed: string[] = [];
  let bytes = 0;
  const isGarbage = (users: Users, name: string, lastUse: number) => !users.has(name) && now - lastUse > graceMs;
  const users = await usersIn(cacheDir, graceMs, now);
  for (const { kind, digest, folder, lastUse } of await foldersIn(cacheDir)) {
    const name = `${kind}/${digest}`;
    if (removed.length >= limit) break;
    if (!isGarbage(users, name, lastUse)) continue;
    const away = join(cacheDir, 'building', `${kind}-${process.pid}-${randomUUID().slice(0, 8)}`);
    const moved = await unlessLocked(cacheDir, kind, async () => {
      // Both may have changed since: another router may have started.
      const usedNow = await usersIn(cacheDir, graceMs, now);
      if (!isGarbage(usedNow, name, (await stat(folder)).mtimeMs)) return false;
      await mkdir(join(cacheDir, 'building'), { recursive: true, mode: 0o700 });
      await rename(folder, away);
      return true;
    });
    if (!moved) continue;
    bytes += await sizeOf(away);
    await rm(away, { recursive: true, force: true });
    removed.push(name);
  }
  return { removed, bytes };
}

async function unlessLocked(cacheDir: string, kind: Kind, work: () => Promise<boolean>): Promise<boolean> {
  try {
    return await withLock(cacheDir, kind, () => undefined, work, LOCK_MS);
  } catch (error) {
    if (error instanceof MachineError && error.code === 'cache-locked') return false;
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function foldersIn(cacheDir: string): Promise<{ kind: Kind; digest: string; folder: string; lastUse: number }[]> {
  const found = [];
  for (const kind of KINDS) {
    for (const digest of await readdir(join(cacheDir, kind)).catch((): string[] => [])) {
      const folder = join(cacheDir, kind, digest);
      const stats = await stat(folder).catch(() => undefined);
      if (stats?.isDirectory()) found.push({ kind, digest, folder, lastUse: stats.mtimeMs });
    }
  }
  return found;
}

const FILES: Partial<Record<Kind, string>> = {
  npm: 'package.json',
  pip: 'lock.json',
  system: 'lock.json',
  oci: 'image.json',
  'oci-name': 'name.json',
};

async function describe(kind: Kind, folder: string): Promise<string> {
  const file = FILES[kind];
  if (file === undefined) return '';
  try {
    const said = await readJson(join(folder, file));
    if (kind === 'npm') {
      // npm writes a range into package.json, also for the one version that was asked for.
      const { packages } = await readJson(join(folder, 'node_modules/.package-lock.json'));
      const installed = packages as Record<string, { version?: string }>;
      const names = Object.keys(said.dependencies ?? {});
      return names.map((name) => `${name}@${installed[`node_modules/${name}`]?.version}`).join(' ');
    }
    return Array.isArray(said.wanted) ? said.wanted.join(' ') : String(said.name ?? '');
  } catch {
    // It is being removed.
    return '';
  }
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
}

/** What it takes on the disk; hard links within it count once. */
async function sizeOf(folder: string): Promise<number> {
  const seen = new Set<number>();
  let bytes = 0;
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const stats = await lstat(join(entry.parentPath, entry.name)).catch(() => undefined);
    if (stats === undefined || seen.has(stats.ino)) continue;
    seen.add(stats.ino);
    bytes += stats.blocks * 512;
  }
  return bytes;
}
