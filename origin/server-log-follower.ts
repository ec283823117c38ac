/**
 * Owns what servers write to stderr from a moment on, read from their files (`server-log.ts`) again and again.
 *
 * Invariant: a line is told once, in its file's order, however often files are put aside between two readings. The file that
 * was read last stays open, so it is read to its end wherever it is, and its inode is nobody else's. Lines are missed only
 * where a file that was never opened is gone, and that is said.
 */
import { closeSync, fstatSync, readSync } from 'node:fs';
import { type OpenFile, openFilesOf } from './log-file.ts';
import { type Begin, type Entry, entryOf, machinesOf, serverFile } from './server-log.ts';

interface Place {
  readonly fd: number;
  readonly inode: number;
  offset: number;
  /** Half a line. */
  rest: string;
}

const CHUNK_BYTES = 64 * 1024;

export class Follower {
  readonly #logs: string;
  readonly #server: string;
  readonly #missed: (machine: string) => void;
  readonly #places = new Map<string, Place>();
  readonly #begins = new Map<string, Begin>();

  /** Follows from now on. `missed` hears that lines of a machine may be missing. */
  constructor(logs: string, server: string, missed: (machine: string) => void) {
    this.#logs = logs;
    this.#server = server;
    this.#missed = missed;
    for (const machine of machinesOf(logs, server)) {
      const files = openFilesOf(serverFile(logs, server, machine));
      const newest = files.pop();
      for (const { fd } of files) closeSync(fd);
      if (newest === undefined) continue;
      const offset = endOfLines(newest.fd);
      this.#begins.set(machine, { inode: newest.inode, offset });
      this.#places.set(machine, { ...placeIn(newest), offset });
    }
  }

  /** What of a machine's files lies before this is not told; undefined: all of them is. */
  beginOf(machine: string): Begin | undefined {
    return this.#begins.get(machine);
  }

  /** What was written since the last time, the oldest first. */
  next(): Entry[] {
    const found = machinesOf(this.#logs, this.#server).flatMap((machine) => this.#newsOf(machine));
    return found.sort((a, b) => a.at - b.at);
  }

  close(): void {
    for (const { fd } of this.#places.values()) closeSync(fd);
    this.#places.clear();
  }

  #newsOf(machine: string): Entry[] {
    // Before the last file is read to its end: what is newer was written after all of it.
    const files = openFilesOf(serverFile(this.#logs, this.#server, machine));
    const last = this.#places.get(machine);
    const found = last === undefined ? [] : advance(last, machine);
    const at = files.findIndex(({ inode }) => inode === last?.inode);
    if (last !== undefined && at < 0) this.#missed(machine);
    for (const { fd } of files.slice(0, at + 1)) closeSync(fd);
    for (const file of files.slice(at + 1)) {
      const before = this.#places.get(machine);
      if (before !== undefined) closeSync(before.fd);
      const place = placeIn(file);
      this.#places.set(machine, place);
      found.push(...advance(place, machine));
    }
    return found;
  }
}

const placeIn = ({ fd, inode }: OpenFile): Place => ({ fd, inode, offset: 0, rest: '' });

/** Where the last whole line ends. */
function endOfLines(fd: number): number {
  const { size } = fstatSync(fd);
  const from = Math.max(0, size - CHUNK_BYTES);
  const chunk = Buffer.alloc(size - from);
  const read = readSync(fd, chunk, 0, chunk.length, from);
  return from + chunk.subarray(0, read).lastIndexOf(10) + 1;
}

function advance(place: Place, machine: string): Entry[] {
  const found: Entry[] = [];
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (;;) {
    const size = readSync(place.fd, chunk, 0, chunk.length, place.offset);
    if (size === 0) return found;
    // Half a character at the end of what was read is read again.
    const whole = chunk.subarray(0, size).lastIndexOf(10) + 1;
    if (whole === 0 && size < chunk.length) return found;
    const text = chunk.subarray(0, whole || size).toString('utf8');
    place.offset += whole || size;
    const lines = (place.rest + text).split('\n');
    place.rest = lines.pop() ?? '';
    for (const line of lines) {
      const entry = entryOf(line, machine);
      if (entry !== undefined) found.push(entry);
    }
  }
}
