/**
 * The pages of a sleeping guest that differ from its memory file: u32 count, then per run two u64 (offset, length), then the
 * bytes of all runs. They pass through the agent in chunks: a machine that wakes costs it no memory.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import type { GuestMemory, Run } from './guest-memory.ts';
import { CHUNK, type Chunk, lengthOf, type Pages, pieces, type Sealed, writeAll, writeChunks } from './memory-files.ts';

const MAX_RUNS = 4 * 1024 * 1024;
/** The number of runs, and each run. */
const HEAD_BYTES = 4;
const RUN_BYTES = 16;

/** Writes the pages of `runs`. */
export async function writeDelta(path: string, name: string, memory: Pages, runs: readonly Run[]): Promise<Sealed> {
  const head = Buffer.alloc(HEAD_BYTES + runs.length * RUN_BYTES);
  head.writeUInt32LE(runs.length, 0);
  for (const [index, [offset, length]] of runs.entries()) {
    const at = HEAD_BYTES + index * RUN_BYTES;
    head.writeBigUInt64LE(BigInt(offset), at);
    head.writeBigUInt64LE(BigInt(length), at + 8);
  }
  const file = await open(path, 'w', 0o600);
  try {
    await writeAll(file, head, 0);
    const sum = await writeChunks(file, deltaChunks(memory, runs, head.length), crc32(head));
    return { name, bytes: head.length + lengthOf(runs), sum };
  } finally {
    await file.close();
  }
}

/** Puts the pages of a delta (a path), whose sum was checked, into a guest's memory. @throws the system's error. */
export function applyDelta(path: string, memory: Pick<GuestMemory, 'write'>): void {
  const file = openSync(path, 'r');
  try {
    const runs = runsOf(file);
    let at = HEAD_BYTES + runs.length * RUN_BYTES;
    const buffer = Buffer.allocUnsafeSlow(CHUNK);
    for (const group of groups(runs)) {
      const chunk = buffer.subarray(0, lengthOf(group));
      fillFrom(file, chunk, at);
      at += chunk.length;
      let begin = 0;
      for (const [offset, length] of group) {
        memory.write(offset, chunk.subarray(begin, begin + length));
        begin += length;
      }
    }
  } finally {
    closeSync(file);
  }
}

function runsOf(file: number): Run[] {
  const head = Buffer.alloc(HEAD_BYTES);
  fillFrom(file, head, 0);
  const count = Math.min(head.readUInt32LE(0), MAX_RUNS);
  const list = Buffer.alloc(count * RUN_BYTES);
  fillFrom(file, list, HEAD_BYTES);
  return Array.from({ length: count }, (_, index): Run => {
    const at = index * RUN_BYTES;
    return [Number(list.readBigUInt64LE(at)), Number(list.readBigUInt64LE(at + 8))];
  });
}

/** Fills the whole of `target`. */
function fillFrom(file: number, target: Buffer, position: number): void {
  for (let at = 0; at < target.length; ) {
    const read = readSync(file, target, at, target.length - at, position + at);
    if (read === 0) throw new Error('a file of the image is shorter than it was');
    at += read;
  }
}

/** Runs gathered until a chunk is full; none is longer than a chunk. */
function* groups(runs: readonly Run[]): Generator<Run[]> {
  let group: Run[] = [];
  let size = 0;
  for (const piece of pieces(runs)) {
    if (size + piece[1] > CHUNK && group.length > 0) {
      yield group;
      group = [];
      size = 0;
    }
    group.push(piece);
    size += piece[1];
  }
  if (group.length > 0) yield group;
}

function* deltaChunks(memory: Pages, runs: readonly Run[], begin: number): Generator<Chunk> {
  let position = begin;
  for (const group of groups(runs)) {
    const length = lengthOf(group);
    yield { position, length, fill: (target) => fillWith(group, memory, target) };
    position += length;
  }
}

function fillWith(group: readonly Run[], memory: Pages, target: Buffer): void {
  let at = 0;
  for (const [offset, length] of group) {
    memory.read(offset, target.subarray(at, at + length));
    at += length;
  }
}
