/**
 * Bounds of a layer's archive, checked on its way to the reader of archives: how long it gets unpacked, its digest, and
 * the length of the headers that the reader keeps in memory as a whole (long names, pax records).
 */
import { createHash } from 'node:crypto';
import { Transform } from 'node:stream';
import { MachineError } from '../../vm/error.ts';

const BLOCK = 512;
const MAX_HEADER = 1024 * 1024;
/** pax records of one entry and of all, GNU long names and links (POSIX 1003.1, pax; GNU tar manual). */
const HEADER_TYPES = new Set(['x', 'g', 'L', 'K', 'X']);

/** What is left of an image's allowance of bytes, shared by its layers. */
export interface Budget {
  left: number;
}

/** Passes bytes on, hashes them and takes them off the budget. Fails with `image-build-failed`. */
export function counting(budget: Budget): { through: Transform; digest: () => string; bytes: () => number } {
  const hash = createHash('sha256');
  let bytes = 0;
  const through = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      bytes += chunk.length;
      budget.left -= chunk.length;
      if (budget.left < 0)
        done(new MachineError('image-build-failed', 'the image is larger than what a machine may have'));
      else done(null, chunk);
    },
  });
  return { through, digest: () => `sha256:${hash.digest('hex')}`, bytes: () => bytes };
}

/** Passes an archive on, and fails with `image-build-failed` at a header of unreasonable length. */
export function guarding(): Transform {
  let skip = 0;
  let rest = Buffer.alloc(0);
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      let data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      while (data.length > 0) {
        if (skip > 0) {
          const step = Math.min(skip, data.length);
          data = data.subarray(step);
          skip -= step;
        } else if (data.length >= BLOCK) {
          const size = sizeOf(data);
          const type = String.fromCharCode(data[156] ?? 0);
          if (!Number.isFinite(size) || (HEADER_TYPES.has(type) && size > MAX_HEADER)) {
            done(new MachineError('image-build-failed', 'the image is damaged or hostile: a header in it has no end'));
            return;
          }
          skip = Math.ceil(size / BLOCK) * BLOCK;
          data = data.subarray(BLOCK);
        } else break;
      }
      rest = Buffer.from(data);
      done(null, chunk);
    },
  });
}

/** The size field of a header: octal digits, or (GNU) a number in base 256 whose first bit is set. */
function sizeOf(header: Buffer): number {
  if (((header[124] ?? 0) & 0x80) === 0) {
    const digits = header
      .toString('latin1', 124, 136)
      .replace(/[\0 ]+$/, '')
      .trim();
    return digits === '' ? 0 : Number.parseInt(digits, 8);
  }
  return Number(header.readBigUInt64BE(128));
}
