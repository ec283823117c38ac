/**
 * Cuts a zstd stream between its frames (RFC 8878, 3.1): Node's decompressor ends with the first frame unless the next one
 * comes as a chunk of its own, and layers in "zstd:chunked" form have a frame for each piece of a file.
 * What is no frame passes as it came, for the decompressor to refuse.
 */
import { Transform } from 'node:stream';

const FRAME = 0xfd2fb528;
const SKIPPABLE = 0x184d2a50;
const RUN_LENGTH = 1;
const DICTIONARY_BYTES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;

/** What is read next, and how many bytes it has. */
const BYTES = { magic: 4, skippable: 4, descriptor: 1, block: 3, foreign: Number.POSITIVE_INFINITY } as const;

export function frameByFrame(): Transform {
  let step: keyof typeof BYTES = 'magic';
  let head = Buffer.alloc(0);
  /** Bytes of the frame that say nothing of where it ends. */
  let skip = 0;
  let checksumBytes = 0;

  const read = (): void => {
    switch (step) {
      case 'magic': {
        const magic = head.readUInt32LE();
        if (magic === FRAME) step = 'descriptor';
        else step = magic >>> 4 === SKIPPABLE >>> 4 ? 'skippable' : 'foreign';
        return;
      }
      case 'skippable':
        skip = head.readUInt32LE();
        step = 'magic';
        return;
      case 'descriptor': {
        const flags = head.readUInt8();
        const isSingle = (flags & 0x20) !== 0;
        const sizeBytes = isSingle && flags >>> 6 === 0 ? 1 : (CONTENT_SIZE_BYTES[flags >>> 6] ?? 0);
        skip = (isSingle ? 0 : 1) + (DICTIONARY_BYTES[flags & 3] ?? 0) + sizeBytes;
        checksumBytes = (flags & 0x04) === 0 ? 0 : 4;
        step = 'block';
        return;
      }
      case 'block': {
        const block = head.readUIntLE(0, 3);
        const isLast = (block & 1) === 1;
        skip = ((block >>> 1) & 3) === RUN_LENGTH ? 1 : block >>> 3;
        if (!isLast) return;
        skip += checksumBytes;
        step = 'magic';
      }
    }
  };

  return new Transform({
    // Chunks stay apart.
    readableObjectMode: true,
    transform(chunk: Buffer, _encoding, done) {
      let start = 0;
      let at = 0;
      while (at < chunk.length) {
        if (skip > 0) {
          const passed = Math.min(skip, chunk.length - at);
          skip -= passed;
          at += passed;
        } else {
          const taken = Math.min(BYTES[step] - head.length, chunk.length - at);
          if (step !== 'foreign') head = Buffer.concat([head, chunk.subarray(at, at + taken)]);
          at += taken;
          if (head.length < BYTES[step]) continue;
          read();
          head = Buffer.alloc(0);
        }
        if (step !== 'magic' || skip > 0 || head.length > 0) continue;
        this.push(chunk.subarray(start, at));
        start = at;
      }
      if (start < chunk.length) this.push(chunk.subarray(start));
      done();
    },
  });
}
