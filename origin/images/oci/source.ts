/**
 * The seam between an image and where it comes from: a registry, a layout folder, a saved tar. A source hands out
 * documents and layers; what it says is checked by whoever reads it against the digests that are known.
 */
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { Digest } from '../../../shared/config/oci-reference.ts';
import { type Descriptor, forMachines, MAX_DOCUMENT, parseManifest, unusable } from './manifest.ts';

export interface SourceLayer {
  /** Of the bytes that `open` gives, where a manifest names it. */
  readonly digest?: Digest;
  readonly size?: number;
  /** The archive, perhaps compressed. The caller reads it to its end or destroys it. Rejects with a MachineError. */
  open(): Promise<Readable>;
}

/** One image of a source. */
export interface SourceImage {
  /** Of its manifest; of its configuration where it has none. */
  readonly digest: Digest;
  /** Text of the configuration, checked. */
  readonly configuration: string;
  readonly layers: readonly SourceLayer[];
}

/** Blobs by digest. */
export interface Blobs {
  open(descriptor: Descriptor): Promise<Readable>;
}

/** Reads a document and checks its digest. Rejects with `image-build-failed`. */
export async function documentOf(blobs: Blobs, descriptor: Descriptor): Promise<string> {
  if (descriptor.size > MAX_DOCUMENT) throw unusable('one of its documents is too long');
  const data = await readAll(await blobs.open(descriptor), MAX_DOCUMENT);
  if (digestOfBytes(data) !== descriptor.digest) throw unusable(`${descriptor.digest} has other content than it says`);
  return data.toString();
}

/** From a manifest, or an index that leads to one, to the image for machines. `wanted` selects one by its digest. */
export async function imageOf(blobs: Blobs, start: Descriptor): Promise<SourceImage> {
  let at = start;
  for (let depth = 0; depth < 3; depth += 1) {
    const parsed = parseManifest(await documentOf(blobs, at));
    if ('index' in parsed) {
      at = forMachines(parsed.index);
      continue;
    }
    const { config, layers } = parsed.manifest;
    return {
      digest: at.digest,
      configuration: await documentOf(blobs, config),
      layers: layers.map((layer) => ({ digest: layer.digest, size: layer.size, open: () => blobs.open(layer) })),
    };
  }
  throw unusable('its indexes lead to indexes');
}

export const digestOfBytes = (data: Uint8Array): Digest => `sha256:${createHash('sha256').update(data).digest('hex')}`;

/** All of a stream, up to `limit` bytes. */
export async function readAll(stream: Readable | ReadableStream<Uint8Array>, limit: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > limit) throw unusable('one of its documents is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
