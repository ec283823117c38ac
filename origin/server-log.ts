/**
 * Owns what servers wrote to stderr, as it lies on the disk: `servers/<server>/<machine>.log` and its older files, a line
 * beginning with its time. Reads it whether or not a router runs.
 *
 * Invariant: reading costs memory for the entries that are wanted, not for the files.
 */
import { closeSync, createReadStream, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { openFilesOf } from './log-file.ts';

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

/** Where a follower begins in the file of a machine. */
export interface Begin {
  readonly inode: number;
  readonly offset: number;
}

/**
 * What a server wrote, the oldest first. `beginOf`, where it is given, says of each machine up to where; of one that it does
 * not know, nothing.
 */
export async function entriesOf(
  logs: string,
  server: string,
  wanted: Wanted,
  beginOf?: (machine: string) => Begin | undefined,
): Promise<Entry[]> {
  let found: Entry[] = [];
  const machines = machinesOf(logs, server).filter((name) => wanted.machine === undefined || name === wanted.machine);
  for (const machine of machines) {
    const begin = beginOf?.(machine);
    let isOver = beginOf !== undefined && begin === undefined;
    for (const { fd, inode, changedAt } of openFilesOf(serverFile(logs, server, machine))) {
      const bytes = isOver ? 0 : inode === begin?.inode ? begin.offset : Number.POSITIVE_INFINITY;
      isOver ||= inode === begin?.inode;
      // Nothing in it is younger than its last write.
      if (bytes === 0 || changedAt < wanted.since) closeSync(fd);
      else found = found.concat(await inFile(fd, bytes, machine, wanted));
    }
  }
  // Stable: what one machine wrote within a millisecond keeps its order.
  return found.sort((a, b) => a.at - b.at).slice(-wanted.last);
}

/** What is wanted of the first `bytes` of a file, which is then closed. */
async function inFile(fd: number, bytes: number, machine: string, wanted: Wanted): Promise<Entry[]> {
  let found: Entry[] = [];
  let batch: Entry[] = [];
  const sift = () => {
    found = [...found, ...choose(batch, wanted)].slice(-wanted.last);
    batch = [];
  };
  const input = createReadStream('', { fd, start: 0, end: bytes - 1 });
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
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
