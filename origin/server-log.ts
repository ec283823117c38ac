/**
 * Owns what servers wrote to stderr, as it lies on the disk: `servers/<server>/<machine>.log` and its older files, a line
 * beginning with its time. Reads it whether or not a router runs.
 *
 * Invariant: reading costs memory for the entries that are wanted, not for the files.
 */
import { closeSync, createReadStream, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { filesOf } from './log-file.ts';

export interface Entry {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly machine: string;
  readonly text: string;
}

export interface Wanted {
  /** Milliseconds since the epoch. */
  readonly since: number;
  /** Only of this machine. */
  readonly machine: string | undefined;
  /** Tells of many texts which are wanted. @throws whatever it throws: reading ends. */
  readonly matches: (texts: readonly string[]) => readonly boolean[];
  /** The newest ones, at most. */
  readonly last: number;
}

/** Texts that are matched at once: a pattern's deadline holds for so many. */
const BATCH = 2_000;
const SUFFIX = '.log';

export const serverFolder = (logs: string, server: string): string => join(logs, 'servers', server);
export const serverFile = (logs: string, server: string, machine: string): string =>
  join(serverFolder(logs, server), `${machine}${SUFFIX}`);

/** Machines whose processes of a server wrote something. */
export function machinesOf(logs: string, server: string): string[] {
  const folder = serverFolder(logs, server);
  if (!existsSync(folder)) return [];
  return readdirSync(folder).flatMap((name) => (name.endsWith(SUFFIX) ? [name.slice(0, -SUFFIX.length)] : []));
}

/** What a server wrote, the oldest first. */
export async function entriesOf(logs: string, server: string, wanted: Wanted): Promise<Entry[]> {
  let found: Entry[] = [];
  const machines = machinesOf(logs, server).filter((name) => wanted.machine === undefined || name === wanted.machine);
  for (const machine of machines) {
    for (const path of filesOf(serverFile(logs, server, machine))) {
      // Nothing in it is younger than its last write.
      if (statSync(path).mtimeMs < wanted.since) continue;
      found = found.concat(await inFile(path, machine, wanted));
    }
  }
  // Stable: what one machine wrote within a millisecond keeps its order.
  return found.sort((a, b) => a.at - b.at).slice(-wanted.last);
}

async function inFile(path: string, machine: string, wanted: Wanted): Promise<Entry[]> {
  let found: Entry[] = [];
  let batch: Entry[] = [];
  const sift = () => {
    found = [...found, ...choose(batch, wanted)].slice(-wanted.last);
    batch = [];
  };
  for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
    const entry = entryOf(line, machine);
    if (entry !== undefined) batch.push(entry);
    if (batch.length >= BATCH) sift();
  }
  sift();
  return found;
}

/** Those of `entries` that are wanted. */
export function choose(entries: readonly Entry[], { since, matches }: Pick<Wanted, 'since' | 'matches'>): Entry[] {
  const young = entries.filter(({ at }) => at >= since);
  const verdicts = matches(young.map(({ text }) => text));
  return young.filter((_, index) => verdicts[index]);
}

/** `2026-01-02T03:04:05.678Z text`; undefined for half a line. */
export function entryOf(line: string, machine: string): Entry | undefined {
  const cut = line.indexOf(' ');
  const at = Date.parse(line.slice(0, cut));
  return cut > 0 && Number.isFinite(at) ? { at, machine, text: line.slice(cut + 1) } : undefined;
}

interface Place {
  readonly inode: number;
  offset: number;
  /** Half a line. */
  rest: string;
}

/** What is written from now on. */
export class Follower {
  readonly #logs: string;
  readonly #server: string;
  readonly #places = new Map<string, Place>();

  constructor(logs: string, server: string) {
    this.#logs = logs;
    this.#server = server;
    for (const machine of machinesOf(logs, server)) {
      const { ino, size } = statSync(serverFile(logs, server, machine));
      this.#places.set(machine, { inode: ino, offset: size, rest: '' });
    }
  }

  /** What was written since the last time. A file that was put aside meanwhile is read to its end first. */
  next(): Entry[] {
    const found: Entry[] = [];
    for (const machine of machinesOf(this.#logs, this.#server)) {
      const path = serverFile(this.#logs, this.#server, machine);
      const status = statSync(path, { throwIfNoEntry: false });
      if (status === undefined) continue;
      let place = this.#places.get(machine);
      if (place !== undefined && place.inode !== status.ino) {
        const older = `${path}.1`;
        if (statSync(older, { throwIfNoEntry: false })?.ino === place.inode)
          found.push(...advance(older, machine, place));
        place = undefined;
      }
      place ??= { inode: status.ino, offset: 0, rest: '' };
      this.#places.set(machine, place);
      found.push(...advance(path, machine, place));
    }
    return found.sort((a, b) => a.at - b.at);
  }
}

function advance(path: string, machine: string, place: Place): Entry[] {
  const file = openSync(path, 'r');
  try {
    const found: Entry[] = [];
    const chunk = Buffer.alloc(64 * 1024);
    for (;;) {
      const size = readSync(file, chunk, 0, chunk.length, place.offset);
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
  } finally {
    closeSync(file);
  }
}
