/**
 * Pages taken out of a stopped guest in one go, so that it may run on while they are written. What was not taken reads as
 * its memory file has it (nothing, for a guest that booted on an empty one).
 */
import { closeSync, openSync, readSync } from 'node:fs';
import type { Run } from './guest-memory.ts';
import { lengthOf, type Pages } from './memory-files.ts';

export class TakenPages implements Pages {
  readonly runs: readonly Run[];
  readonly #data: Buffer;
  /** Where each run begins in the data. */
  readonly #starts: number[] = [];
  readonly #base: number;

  /** Takes `runs`, which ascend. `room` is used where it suffices: memory that is touched already is filled faster. */
  constructor(memory: Pages, runs: readonly Run[], memoryFile: string, room: Buffer) {
    this.runs = runs;
    const size = lengthOf(runs);
    this.#data = room.length >= size ? room : Buffer.allocUnsafe(size);
    let at = 0;
    for (const [offset, length] of runs) {
      this.#starts.push(at);
      memory.read(offset, this.#data.subarray(at, at + length));
      at += length;
    }
    this.#base = openSync(memoryFile, 'r');
  }

  read(offset: number, target: Buffer): void {
    const end = offset + target.length;
    let index = this.#firstEndingAfter(offset);
    const [begin = 0, length = 0] = this.runs[index] ?? [];
    if (begin > offset || begin + length < end || length === 0) this.#readBase(offset, target);
    for (; index < this.runs.length; index += 1) {
      const [start, size] = this.runs[index] as Run;
      if (start >= end) return;
      const from = Math.max(start, offset);
      const to = Math.min(start + size, end);
      const at = (this.#starts[index] ?? 0) + from - start;
      this.#data.copy(target, from - offset, at, at + to - from);
    }
  }

  close(): void {
    closeSync(this.#base);
  }

  #readBase(offset: number, target: Buffer): void {
    let read = 0;
    while (read < target.length) {
      const moved = readSync(this.#base, target, read, target.length - read, offset + read);
      if (moved === 0) break;
      read += moved;
    }
    target.fill(0, read);
  }

  #firstEndingAfter(offset: number): number {
    let low = 0;
    let high = this.runs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const [start, length] = this.runs[middle] as Run;
      if (start + length > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
