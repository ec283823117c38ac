/** Bounds of a layer's archive, checked on its way to the reader of archives: how long it gets unpacked, and its digest. */
import { createHash } from 'node:crypto';
import { Transform } from 'node:stream';
import { MachineError } from '../../vm/error.ts';

/** What is left of an image's allowance of bytes, shared by its layers. */
export interface Budget {
  left: number;
}

/** Passes bytes on, hashes them and takes them off the budget. Fails with `image-build-failed`. */
export function counting(budget: Budget): { through: Transform; digest: () => string } {
  const hash = createHash('sha256');
  const through = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      budget.left -= chunk.length;
      if (budget.left < 0)
        done(new MachineError('image-build-failed', 'the image is larger than what a machine may have'));
      else done(null, chunk);
    },
  });
  return { through, digest: () => `sha256:${hash.digest('hex')}` };
}
