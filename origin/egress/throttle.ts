/** Delays what passes in one direction of a machine's connections, all together, to the machine's rate (`rate.ts`). */
import { Transform } from 'node:stream';
import { type Bucket, full, type Rate, take } from '../rate.ts';

export class Throttle {
  readonly #rate: Rate;
  readonly #now: () => number;
  #bucket: Bucket;

  constructor(rate: Rate, now: () => number) {
    this.#rate = rate;
    this.#now = now;
    this.#bucket = full(rate, now());
  }

  /** A piece of a connection's way. What waits in it is one chunk. */
  stream(): Transform {
    let timer: NodeJS.Timeout | undefined;
    return new Transform({
      highWaterMark: 64 * 1024,
      transform: (chunk: Buffer, _encoding, done) => {
        const { bucket, waitMs } = take(this.#rate, this.#bucket, chunk.length, this.#now());
        this.#bucket = bucket;
        if (waitMs === 0) done(null, chunk);
        else timer = setTimeout(() => done(null, chunk), waitMs);
      },
      destroy: (error, done) => {
        clearTimeout(timer);
        done(error);
      },
    });
  }
}
