/**
 * Owns how an archive that a machine sent becomes files of this host. The archive is hostile: nothing is written outside the
 * one path that the user named, whatever names and links it holds and whatever links lie there already.
 *
 * Invariants: a name with `..`, a root or another first folder than the one that was asked for ends it; every folder on the
 * way is a folder, not a link; links are made last, so that nothing is written through them, and only those that stay
 * inside; no device, no setuid. Permissions and times are kept.
 */
import { constants, createWriteStream } from 'node:fs';
import { chmod, copyFile, lstat, mkdir, rm, symlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, type Header } from 'tar-stream';

/** The archive is not what was asked for. */
export class UnpackError extends Error {
  override readonly name = 'UnpackError';
}

export interface UnpackOptions {
  /** First folder of all names in the archive; `.` where its names begin with none. */
  readonly base: string;
  /** What `base` becomes here. */
  readonly target: string;
  /** Told about what was left out, by its name in the archive. */
  readonly leftOut: (name: string, why: string) => void;
}

interface Later {
  readonly links: { path: string[]; to: string }[];
  readonly folders: { path: string[]; header: Header }[];
}

/** @throws UnpackError, and what the file system says. What was written before stays. */
export async function unpack(archive: Readable, options: UnpackOptions): Promise<void> {
  const entries = extract();
  pipeline(archive, entries).catch(() => undefined);
  const written = new Set<string>();
  const later: Later = { links: [], folders: [] };
  try {
    for await (const entry of entries) {
      const path = pathOf(entry.header.name, options.base);
      await place(entry, entry.header, path, { ...options, written, later });
      entry.resume();
    }
  } catch (error) {
    if (error instanceof Error && /tar header|Unexpected end/i.test(error.message)) {
      throw new UnpackError('The machine sent something that is no archive.');
    }
    throw error;
  }
  for (const { path, to } of later.links) await symlink(to, await free(options.target, path));
  for (const { path, header } of later.folders.reverse()) await dress(join(options.target, ...path), header);
}

/** Where an entry belongs below the target, folder by folder. */
function pathOf(name: string, base: string): string[] {
  const parts = name.split('/').filter((part) => part !== '.' && part !== '');
  if (name.startsWith('/') || parts.includes('..') || name.includes('\0')) throw traversal(name);
  if (base === '.') return parts;
  if (parts.shift() !== base) throw traversal(name);
  return parts;
}

const traversal = (name: string) =>
  new UnpackError(
    `The machine sent ${JSON.stringify(name)}, which lies outside what was asked for. Nothing more is copied.`,
  );

async function place(
  entry: AsyncIterable<unknown>,
  header: Header,
  path: string[],
  { base, target, leftOut, written, later }: UnpackOptions & { written: Set<string>; later: Later },
): Promise<void> {
  switch (header.type) {
    case 'directory':
      await folder(target, path);
      later.folders.push({ path, header });
      return;
    case 'file':
    case 'contiguous-file': {
      const to = await free(target, path);
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
      // Node takes numbers as well (fs, "File system flags"), which its types do not say.
      await pipeline(entry, createWriteStream(to, { flags: flags as never, mode: 0o600 }));
      await dress(to, header);
      written.add(to);
      return;
    }
    case 'link': {
      const from = join(target, ...pathOf(header.linkname ?? '', base));
      if (!written.has(from)) leftOut(header.name, 'a second name of a file that is not in the archive');
      else await copyFile(from, await free(target, path), constants.COPYFILE_EXCL);
      return;
    }
    case 'symlink':
      if (staysInside(path, header.linkname ?? '')) later.links.push({ path, to: header.linkname ?? '' });
      else leftOut(header.name, 'a link that leads out of what is copied');
      return;
    default:
      leftOut(header.name, `a ${header.type ?? 'thing'}, no file`);
  }
}

/**
 * Whether a link's target lies inside. `..` may only begin it: behind a name that is itself a link it would climb from
 * somewhere else.
 */
export function staysInside(path: readonly string[], to: string): boolean {
  if (to === '' || to.startsWith('/')) return false;
  const parts = to.split('/').filter((part) => part !== '.' && part !== '');
  const down = parts.findIndex((part) => part !== '..');
  const up = down < 0 ? parts.length : down;
  return up < path.length && !parts.slice(up).includes('..');
}

/** Makes the folders of a path, each a real one. */
async function folder(target: string, path: readonly string[]): Promise<void> {
  for (let depth = 0; depth <= path.length; depth += 1) {
    const at = join(target, ...path.slice(0, depth));
    const there = await lstat(at).catch(() => undefined);
    // The target itself is the user's choice.
    if (there?.isDirectory() || (depth === 0 && there?.isSymbolicLink())) continue;
    if (there) throw new UnpackError(`${at} is in the way: it is no folder.`);
    await mkdir(at, { mode: 0o700 });
  }
}

/** The place of a file, whose folders are there; what had its name is removed, unless it is a folder. */
async function free(target: string, path: readonly string[]): Promise<string> {
  if (path.length > 0) await folder(target, path.slice(0, -1));
  const at = join(target, ...path);
  if ((await lstat(at).catch(() => undefined))?.isDirectory())
    throw new UnpackError(`${at} is in the way: it is a folder.`);
  await rm(at, { force: true });
  return at;
}

async function dress(path: string, { mode, mtime }: Header): Promise<void> {
  if (mode !== undefined) await chmod(path, mode & 0o777);
  if (mtime) await utimes(path, mtime, mtime);
}
