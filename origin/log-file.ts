/**
 * Owns files that grow by lines and never beyond a bound: `x.log` is the newest, `x.log.1` older, and so on.
 *
 * Invariant: a full disk never takes the agent down: what cannot be written is lost, and said by the caller's `failed`.
 */
import { appendFileSync, existsSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

export interface Bounds {
  readonly maxBytes: number;
  /** Older files beside the newest. */
  readonly older: number;
}

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

/** The files of `path` that are there, the oldest first. */
export function filesOf(path: string): string[] {
  const files = [path];
  for (let n = 1; existsSync(`${path}.${n}`); n += 1) files.unshift(`${path}.${n}`);
  return files.filter((file) => existsSync(file));
}
