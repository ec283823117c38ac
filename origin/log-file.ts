/**
 * Owns files that grow by lines and never beyond a bound: `x.log` is the newest, `x.log.1` older, and so on.
 *
 * Invariant: a full disk never takes the agent down: what cannot be written is lost, and said by the caller's `failed`.
 */
import { appendFileSync, closeSync, existsSync, fstatSync, mkdirSync, openSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

export interface Bounds {
  readonly maxBytes: number;
  /** Older files beside the newest. */
  readonly older: number;
}

/** More older files than anybody keeps. */
const MAX_OLDER = 9;

export class LogFiles {
  readonly #sizes = new Map<string, number>();
  readonly #failed: (code: string) => void;

  constructor(failed: (code: string) => void) {
    this.#failed = failed;
  }

  /** Appends to the newest file of `path`, whose folder is made (0700). */
  append(path: string, text: string, { maxBytes, older }: Bounds): void {
    try {
      let size = this.#sizes.get(path) ?? begin(path);
      if (size > 0 && size + text.length > maxBytes) {
        for (let n = older; n > 0; n -= 1) rename(n === 1 ? path : `${path}.${n - 1}`, `${path}.${n}`);
        size = 0;
      }
      appendFileSync(path, text, { mode: 0o600 });
      this.#sizes.set(path, size + Buffer.byteLength(text));
    } catch (error) {
      this.#sizes.delete(path);
      this.#failed((error as NodeJS.ErrnoException).code ?? 'unknown');
    }
  }
}

function begin(path: string): number {
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  return size ?? 0;
}

function rename(from: string, to: string): void {
  if (existsSync(from)) renameSync(from, to);
}

/** One of the files of a path, open for reading: whoever has it closes it. */
export interface OpenFile {
  readonly fd: number;
  readonly inode: number;
  /** When it was last written to, in milliseconds since the epoch. */
  readonly changedAt: number;
}

/**
 * The files of `path`, the oldest first. They are opened from the newest on, in the direction in which they are put aside
 * meanwhile: none is missed, and one that is met twice counts once.
 */
export function openFilesOf(path: string): OpenFile[] {
  const files: OpenFile[] = [];
  for (let n = 0; n <= MAX_OLDER; n += 1) {
    const fd = openIfThere(n === 0 ? path : `${path}.${n}`);
    if (fd === undefined) continue;
    const { ino: inode, mtimeMs: changedAt } = fstatSync(fd);
    if (files.some((file) => file.inode === inode)) closeSync(fd);
    else files.unshift({ fd, inode, changedAt });
  }
  return files;
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
