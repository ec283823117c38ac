/**
 * The memory of a stopped guest as seen from outside its QEMU: which pages it has changed, and their bytes.
 *
 * QEMU maps the guest's memory privately over a file, so the pages that differ from the file are exactly those of the
 * mapping that are private copies (Linux, admin-guide/mm/pagemap). /proc/PID/mem needs the same user and an ancestor, or
 * root: a host that refuses it cannot hibernate machines. Offsets are those of the guest's memory, in bytes.
 * Calls are synchronous: they copy memory, and one at a time for a thousand small pieces would cost more than the copying.
 */
import { closeSync, openSync, readFileSync, readSync, realpathSync, writeSync } from 'node:fs';

export const PAGE = 4096;
const ENTRY_BYTES = 8;
const ENTRIES_AT_ONCE = 128 * 1024;
/** Bits of an entry's upper half: present, swapped; and "page of a file or shared", which an own copy is not. */
const EXISTS = 0xc000_0000;
const IS_FILE = 0x2000_0000;

/** A piece of memory: offset and length in bytes, multiples of a page. */
export type Run = readonly [offset: number, length: number];

type Move = (fd: number, buffer: Buffer, at: number, length: number, position: number) => number;

interface Mapping {
  readonly address: number;
  readonly offset: number;
  readonly length: number;
}

export class GuestMemory {
  readonly #pid: number;
  readonly #fd: number;
  readonly #mappings: readonly Mapping[];

  /** The memory of the QEMU `pid` that maps `file`. The caller closes it. @throws the system's error. */
  constructor(pid: number, file: string, mode: 'r' | 'r+') {
    this.#pid = pid;
    this.#mappings = mappingsOf(readFileSync(`/proc/${pid}/maps`, 'utf8'), realpathSync(file));
    if (this.#mappings.length === 0) throw new Error('QEMU does not map the memory file');
    this.#fd = openSync(`/proc/${pid}/mem`, mode);
  }

  /** What the guest has changed since its memory file was mapped, in ascending order. */
  changed(): Run[] {
    const pagemap = openSync(`/proc/${this.#pid}/pagemap`, 'r');
    try {
      const runs: Run[] = [];
      for (const mapping of this.#mappings) collect(pagemap, mapping, runs);
      return runs;
    } finally {
      closeSync(pagemap);
    }
  }

  /** Reads into the whole of `target`. */
  read(offset: number, target: Buffer): void {
    this.#transfer(offset, target, readSync);
  }

  write(offset: number, source: Buffer): void {
    this.#transfer(offset, source, writeSync);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #transfer(offset: number, buffer: Buffer, move: Move): void {
    for (let at = 0; at < buffer.length; ) {
      const place = offset + at;
      const mapping = this.#mappings.find((m) => place >= m.offset && place < m.offset + m.length);
      if (mapping === undefined) throw new Error('the guest has no memory there');
      const length = Math.min(buffer.length - at, mapping.offset + mapping.length - place);
      const moved = move(this.#fd, buffer, at, length, mapping.address + place - mapping.offset);
      if (moved === 0) throw new Error("QEMU's memory ended early");
      at += moved;
    }
  }
}

/** The private mappings of a file in /proc/PID/maps, by ascending offset. */
export function mappingsOf(maps: string, file: string): Mapping[] {
  const found: Mapping[] = [];
  for (const line of maps.split('\n')) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+\s+(.*)$/.exec(line);
    const [, start = '', end = '', offset = '', path = ''] = match ?? [];
    if (path !== file) continue;
    const address = Number.parseInt(start, 16);
    found.push({ address, offset: Number.parseInt(offset, 16), length: Number.parseInt(end, 16) - address });
  }
  return found.sort((a, b) => a.offset - b.offset);
}

function collect(pagemap: number, mapping: Mapping, runs: Run[]): void {
  const pages = mapping.length / PAGE;
  const buffer = Buffer.alloc(Math.min(pages, ENTRIES_AT_ONCE) * ENTRY_BYTES);
  let begin = -1;
  const end = (page: number) => {
    if (begin >= 0) runs.push([mapping.offset + begin * PAGE, (page - begin) * PAGE]);
    begin = -1;
  };
  for (let page = 0; page < pages; ) {
    const wanted = Math.min(pages - page, ENTRIES_AT_ONCE);
    const position = (mapping.address / PAGE + page) * ENTRY_BYTES;
    const entries = Math.floor(readSync(pagemap, buffer, 0, wanted * ENTRY_BYTES, position) / ENTRY_BYTES);
    if (entries === 0) throw new Error('the page map ended early');
    for (let entry = 0; entry < entries; entry += 1) {
      const upper = buffer.readUInt32LE(entry * ENTRY_BYTES + 4);
      const isChanged = (upper & EXISTS) !== 0 && (upper & IS_FILE) === 0;
      if (!isChanged) end(page + entry);
      else if (begin < 0) begin = page + entry;
    }
    page += entries;
  }
  end(pages);
}

/** The union of runs, in whole blocks of `block` bytes, cut at `size`. */
export function blocksOf(runs: readonly Run[], block: number, size: number): Run[] {
  const numbers = new Set<number>();
  for (const [offset, length] of runs) {
    for (let at = Math.floor(offset / block); at * block < offset + length; at += 1) numbers.add(at);
  }
  const blocks: [number, number][] = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const offset = number * block;
    const length = Math.min(block, size - offset);
    const last = blocks.at(-1);
    if (last && last[0] + last[1] === offset) last[1] += length;
    else blocks.push([offset, length]);
  }
  return blocks;
}
