/**
 * The image cache: `<root>/<kind>/<digest>/` folders that never change once they have that name. A folder's time is that
 * of its last use.
 *
 * Invariants: a folder is built elsewhere in the cache, on the same file system, and renamed into place, so what has the
 * final name is complete; the name is a digest of everything that went in, so finding it is all the checking a start
 * needs. One builder at a time per kind holds a lock file; the lock only saves double work (two builders that race past
 * it both build, and the second rename loses), so a wrong guess about a dead owner cannot corrupt anything.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash, randomUUID } from 'node:crypto';
import { type Dirent, existsSync, readdirSync, readFileSync } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, rm, stat, unlink, utimes, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MachineError } from '../vm/error.ts';
import { processStart } from '../vm/pid.ts';

export type Progress = (line: string) => void;

const LOCK_POLL_MS = 150;
const LOCK_DEADLINE_MS = 15 * 60_000;
/** A folder that was used within this time may be used without asking; nobody removes one so soon. Milliseconds. */
const FRESH_MS = 10 * 60_000;
/** The shortest time after its last use at which a folder may be removed. Milliseconds. */
export const MIN_GRACE_MS = 6 * FRESH_MS;

const using = new AsyncLocalStorage<Set<string>>();

/** What `work` gives, and the folders of the cache (`kind/digest`) that it found or built on its way. */
export async function noticingUses<T>(work: () => Promise<T>): Promise<{ result: T; uses: readonly string[] }> {
  const seen = new Set<string>();
  const result = await using.run(seen, work);
  return { result, uses: [...seen].sort() };
}

/** Where images live unless told otherwise: $MOORAGE_CACHE, $XDG_CACHE_HOME/moorage, ~/.cache/moorage. */
export function defaultCacheDir(env: NodeJS.ProcessEnv = process.env): string {
  if (env.MOORAGE_CACHE) return env.MOORAGE_CACHE;
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'moorage');
}

/** Hex digest (32 characters) of a JSON value; key order is the caller's. */
export function digestOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 32);
}

/** Digest of a folder's names, modes and contents, independent of times, owners and where it lies. */
export function digestFolder(folder: string, skip: (name: string) => boolean = () => false): string {
  const hash = createHash('sha256');
  const visit = (path: string, prefix: string) => {
    const byName = (a: Dirent, b: Dirent) => (a.name < b.name ? -1 : 1);
    for (const entry of readdirSync(path, { withFileTypes: true }).sort(byName)) {
      if (skip(entry.name)) continue;
      const name = `${prefix}${entry.name}`;
      if (entry.isDirectory()) {
        hash.update(`d ${name}\0`);
        visit(join(path, entry.name), `${name}/`);
      } else if (entry.isFile()) {
        const content = readFileSync(join(path, entry.name));
        hash.update(`f ${name}\0${content.length}\0`).update(content);
      } else {
        hash.update(`o ${name}\0`);
      }
    }
  };
  visit(folder, '');
  return hash.digest('hex').slice(0, 32);
}

/**
 * Path of the finished folder for this digest, building it first when it is not there. `build` fills the empty folder
 * it is given; when it throws, nothing is kept.
 */
export async function ensureBuilt(
  root: string,
  kind: string,
  digest: string,
  build: (folder: string) => Promise<void>,
  progress: Progress,
): Promise<string> {
  const final = join(root, kind, digest);
  using.getStore()?.add(`${kind}/${digest}`);
  if (await isFresh(final)) return final;
  return withLock(root, kind, progress, async () => {
    if (await touch(final)) return final;
    const temporary = join(
      root,
      'building',
      `${kind}-${digest.slice(0, 8)}-${process.pid}-${randomUUID().slice(0, 8)}`,
    );
    await sweep(join(root, 'building'));
    await mkdir(temporary, { recursive: true, mode: 0o700 });
    try {
      await build(temporary);
      await persist(temporary);
      await publish(temporary, final);
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
    return final;
  });
}

/** Removes what builders that died have left; their process id is part of the name. */
export async function sweep(building: string): Promise<void> {
  for (const name of await readdir(building).catch((): string[] => [])) {
    const pid = Number(/-(\d+)-[0-9a-f]{8}$/.exec(name)?.[1]);
    if (processStart(pid) === undefined) await rm(join(building, name), { recursive: true, force: true });
  }
}

async function isFresh(folder: string): Promise<boolean> {
  try {
    return Date.now() - (await stat(folder)).mtimeMs < FRESH_MS;
  } catch {
    return false;
  }
}

/** Notes a use now. False when there is no such folder. Only with the lock of its kind: it could just be removed. */
async function touch(folder: string): Promise<boolean> {
  try {
    await utimes(folder, new Date(), new Date());
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** Flushes the folder's own files, so that after a power cut what has the final name also has its content. */
async function persist(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = await open(join(folder, entry.name), 'r');
    await file.sync();
    await file.close();
  }
}

async function publish(temporary: string, final: string): Promise<void> {
  // What was unpacked into it may have given it a time of its own.
  await touch(temporary);
  try {
    await rename(temporary, final);
  } catch (error) {
    // Another builder was first with the same content.
    if (!existsSync(final)) throw error;
  }
}

/**
 * Runs `work` while holding the cache-wide lock `name`; a lock of a dead process is taken over. Rejects with `cache-locked`
 * when a living one has it for longer than `deadlineMs`.
 */
export async function withLock<T>(
  root: string,
  name: string,
  progress: Progress,
  work: () => Promise<T>,
  deadlineMs = LOCK_DEADLINE_MS,
): Promise<T> {
  const path = join(root, 'locks', `${name}.lock`);
  await mkdir(join(root, 'locks'), { recursive: true, mode: 0o700 });
  await mkdir(join(root, name), { recursive: true, mode: 0o700 });
  const owner = JSON.stringify({ pid: process.pid, start: processStart(process.pid), id: randomUUID() });
  const mine = `${path}.${randomUUID()}`;
  await writeFile(mine, owner);
  try {
    await acquire(path, mine, name, progress, deadlineMs);
  } finally {
    await unlink(mine);
  }
  try {
    return await work();
  } finally {
    if ((await readLock(path)) === owner) await rm(path, { force: true });
  }
}

async function acquire(
  path: string,
  mine: string,
  name: string,
  progress: Progress,
  deadlineMs: number,
): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  for (let told = false; ; ) {
    try {
      // A link appears with its content in one step: nobody ever reads a lock that does not name its owner yet.
      await link(mine, path);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const content = await readLock(path);
    if (content !== undefined && !ownerAlive(content)) {
      await rm(path, { force: true });
      continue;
    }
    if (Date.now() > deadline) {
      throw new MachineError(
        'cache-locked',
        `another process has been building "${name}" for too long; remove ${path}`,
      );
    }
    if (!told) progress(`waiting for another process that builds the ${name} image`);
    told = true;
    await sleep(LOCK_POLL_MS);
  }
}

async function readLock(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    // Released meanwhile.
    return undefined;
  }
}

function ownerAlive(content: string): boolean {
  try {
    const { pid, start } = JSON.parse(content) as { pid: number; start: string };
    return processStart(pid) === start;
  } catch {
    // Not a lock that we wrote: nobody alive owns it.
    return false;
  }
}

/** True when the path exists and is a folder. */
export async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}
