/** What a layer or archive is packed with, told by its first bytes: labels are wrong at times. */
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { unusable } from './manifest.ts';
import { frameByFrame } from './zstd-frames.ts';

const MAGIC = { gzip: '1f8b', xz: 'fd377a58', bzip2: '425a68' } as const;
/** A frame, or one that is to be skipped (RFC 8878, 3.1.1 and 3.1.2). */
const ZSTD = /^(28b52ffd|5.2a4d18)/;

/** The stream without its compression (gzip, zstd or none). Rejects with `image-build-failed` for others. */
export async function unpacked(stream: Readable): Promise<Readable> {
  const start = (await firstBytes(stream, 4)).toString('hex');
  if (start.startsWith(MAGIC.xz) || start.startsWith(MAGIC.bzip2)) {
    stream.destroy();
    throw unusable('it is packed with xz or bzip2; gzip, zstd and plain layers are read');
  }
  // A failure of any ends the others; whoever reads the last hears of it.
  if (start.startsWith(MAGIC.gzip)) return pipeline(stream, createGunzip(), () => undefined);
  if (ZSTD.test(start)) return pipeline(stream, frameByFrame(), createZstdDecompress(), () => undefined);
  return stream;
}

async function firstBytes(stream: Readable, count: number): Promise<Buffer> {
  for (;;) {
    const head: Buffer | null = stream.read(count);
    if (head !== null) {
      stream.unshift(head);
      return head;
    }
    if (stream.readableEnded) return Buffer.alloc(0);
    const controller = new AbortController();
    const { signal } = controller;
    await Promise.race([once(stream, 'readable', { signal }), once(stream, 'end', { signal })]);
    controller.abort();
  }
}
