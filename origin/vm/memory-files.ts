/**
 * The files that hold a sleeping guest's memory, written and verified: a *memory file* here, a *delta* in `delta.ts`.
 *
 * A memory file has every byte at its own offset and is mapped by QEMU, privately: it never changes once written. Both are
 * complete on the disk (fsync) before anyone refers to them; sums are CRC-32 over the bytes in order.
 */
import { readFileSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { blocksOf, type Run } from './guest-memory.ts';

/** A guest's memory, or what was taken of it. */
export interface Pages {
  /** Fills the whole of `target`. */
  read(offset: number, target: Buffer): void;
}

/** Large enough to be quick, short enough that copying one does not hold up the agent, in bytes. */
export const CHUNK = 1024 * 1024;
/** So much is written before it is brought to the disk, in bytes. */
const SYNC_EVERY = 4 * 1024 * 1024;
/** A memory file is written and summed in blocks of this size. */
const BLOCK = 256 * 1024;

/** A file that is to be what it was. */
export interface Sealed {
  readonly name: string;
  readonly bytes: number;
  readonly sum: number;
}

/** A memory file: only `runs` of it hold anything, the rest is holes. */
export interface SealedMemory extends Sealed {
  readonly runs: readonly Run[];
  /** Unchanged since it was sealed as long as this is unchanged: then it need not be read to be trusted. */
  readonly identity: string;
}

/** An empty memory file for a guest that boots. */
export async function createMemory(path: string, bytes: number, mode: number): Promise<void> {
  // Never over one that is there: others may share it.
  const file = await open(path, 'wx', 0o600);
  try {
    await file.chmod(mode);
    await file.truncate(bytes);
  } finally {
    await file.close();
  }
}

/** Writes the guest's whole memory: what it changed, and what its memory file held already (`known`). */
export async function writeMemory(
  path: string,
  name: string,
  memory: Pages,
  { changed, known, bytes, mode }: { changed: readonly Run[]; known: readonly Run[]; bytes: number; mode: number },
): Promise<SealedMemory> {
  const runs = blocksOf([...known, ...changed], BLOCK, bytes);
  // Never over one that is there: others may share it.
  const file = await open(path, 'wx', 0o600);
  try {
    await file.chmod(mode);
    await file.truncate(bytes);
    const sum = await writeChunks(file, memoryChunks(memory, runs), 0);
    return { name, bytes, sum, runs, identity: identityOf(await file.stat({ bigint: true })) };
  } finally {
    await file.close();
  }
}

/** What is wrong with a memory file, or nothing, as far as it shows without reading it. */
export async function faultOfMemory(path: string, sealed: SealedMemory): Promise<string | undefined> {
  const size = await stat(path).then(
    (status) => status.size,
    () => undefined,
  );
  if (size === undefined) return 'its memory file is gone';
  return size === sealed.bytes ? undefined : 'its memory file has another size';
}

/** What is wrong with the content of a memory file, or nothing. Reads it only when it may have been touched. */
export async function faultInMemory(path: string, sealed: SealedMemory): Promise<string | undefined> {
  const file = await open(path, 'r');
  try {
    if (identityOf(await file.stat({ bigint: true })) === sealed.identity) return undefined;
    const sum = await sumOf(file, sealed.runs);
    return sum === sealed.sum ? undefined : 'its memory file is damaged';
  } finally {
    await file.close();
  }
}

/** What is wrong with a file, or nothing. Rejects with the system's error. */
export async function faultInFile(path: string, { name, bytes, sum }: Sealed): Promise<string | undefined> {
  const file = await open(path, 'r');
  try {
    if ((await file.stat()).size !== bytes) return `${name} has another size`;
    return (await sumOf(file, [[0, bytes]])) === sum ? undefined : `${name} is damaged`;
  } finally {
    await file.close();
  }
}

/** Of the bytes of these runs; undefined when the file ends before. */
async function sumOf(file: FileHandle, runs: readonly Run[]): Promise<number | undefined> {
  const buffer = Buffer.allocUnsafeSlow(CHUNK);
  let sum = 0;
  for (const [offset, length] of pieces(runs)) {
    const chunk = buffer.subarray(0, length);
    if (!(await readAll(file, chunk, offset))) return undefined;
    sum = crc32(chunk, sum);
  }
  return sum;
}

export function lengthOf(runs: readonly Run[]): number {
  return runs.reduce((sum, [, length]) => sum + length, 0);
}

/**
 * Boot of the host, inode, size and time of the last change of content: while they are the same, the content is what was
 * written (the inode's own time changes with every machine that comes to share the file). After another boot it must be
 * read: a power cut may have lost some of it.
 */
function identityOf(status: { ino: bigint; size: bigint; mtimeNs: bigint }): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return `${boot} ${status.ino} ${status.size} ${status.mtimeNs}`;
}

/** In pieces of a chunk at most. */
export function* pieces(runs: readonly Run[]): Generator<Run> {
  for (const [offset, length] of runs) {
    for (let at = 0; at < length; at += CHUNK) yield [offset + at, Math.min(CHUNK, length - at)];
  }
}

/** A piece of a file that is being written. */
export interface Chunk {
  readonly position: number;
  /** At most CHUNK. */
  readonly length: number;
  /** Fills the whole of `target`. */
  fill(target: Buffer): void;
}

/**
 * Writes chunks one after another, each filled while the one before it is written (two buffers do for all), and has them on
 * the disk. Resolves with the sum of all bytes, going on from `sum`.
 */
export async function writeChunks(file: FileHandle, chunks: Iterable<Chunk>, sum: number): Promise<number> {
  let [buffer, other] = [Buffer.allocUnsafeSlow(CHUNK), Buffer.allocUnsafeSlow(CHUNK)];
  let total = sum;
  let writing: Promise<void> = Promise.resolve();
  const early = new EarlySync(file);
  try {
    for (const { position, length, fill } of chunks) {
      const chunk = buffer.subarray(0, length);
      fill(chunk);
      total = crc32(chunk, total);
      await writing;
      writing = writeAll(file, chunk, position);
      writing.catch(() => undefined);
      early.written(length);
      [buffer, other] = [other, buffer];
    }
  } finally {
    // Nobody closes the file under a write.
    await Promise.allSettled([writing, early.over]);
  }
  await Promise.all([writing, early.over]);
  await file.sync();
  return total;
}

/** Brings what is written to the disk while more is being written, so that little is left to wait for in the end. */
class EarlySync {
  /** Rejects with the system's error: it is told once, and not to the sync in the end. */
  over: Promise<void> = Promise.resolve();
  readonly #file: FileHandle;
  #bytes = 0;
  #isBusy = false;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  written(bytes: number): void {
    this.#bytes += bytes;
    if (this.#isBusy || this.#bytes < SYNC_EVERY) return;
    this.#bytes = 0;
    this.#isBusy = true;
    this.over = this.over.then(async () => {
      await this.#file.datasync();
      this.#isBusy = false;
    });
    this.over.catch(() => undefined);
  }
}

function* memoryChunks(memory: Pages, runs: readonly Run[]): Generator<Chunk> {
  for (const [position, length] of pieces(runs)) {
    yield { position, length, fill: (target) => memory.read(position, target) };
  }
}

export async function writeAll(file: FileHandle, data: Buffer, position: number): Promise<void> {
  for (let at = 0; at < data.length; ) at += (await file.write(data, at, data.length - at, position + at)).bytesWritten;
}

async function readAll(file: FileHandle, target: Buffer, position: number): Promise<boolean> {
  for (let at = 0; at < target.length; ) {
    const { bytesRead } = await file.read(target, at, target.length - at, position + at);
    if (bytesRead === 0) return false;
    at += bytesRead;
  }
  return true;
}
