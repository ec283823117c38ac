/**
 * Images on this host: an OCI image layout (image specification, "OCI Image Layout"), and what `docker save` writes. Both
 * are folders here; a saved tar is unpacked first (`archive.ts`).
 */
import { createReadStream, type ReadStream } from 'node:fs';
import { lstat, readFile, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import type { Digest } from '../../../shared/config/oci-reference.ts';
import {
  allForMachines,
  type Descriptor,
  forMachines,
  MAX_DOCUMENT,
  parseIndex,
  parseSaved,
  unusable,
} from './manifest.ts';
import { type Blobs, digestOfBytes, imageOf, type SourceImage } from './source.ts';

/** Finds a file of the folder by its name there; undefined when there is none. */
export type Lookup = (name: string) => Promise<string | undefined>;

/** Names within a folder; links may lead to other files in it, as in what older Dockers save, not out of it. */
export function lookupIn(folder: string): Lookup {
  return async (name) => {
    const root = await realpath(folder);
    const path = await realpath(join(root, name)).catch(() => undefined);
    return path?.startsWith(`${root}${sep}`) && (await lstat(path)).isFile() ? path : undefined;
  };
}

/** The image for machines in a layout or a saved image; of several the one with this digest. Rejects with a MachineError. */
export async function imageIn(lookup: Lookup, wanted: Digest | undefined): Promise<SourceImage> {
  const index = await lookup('index.json');
  if (index !== undefined) return imageOf(blobsIn(lookup), choose(parseIndex(await textOf(index)), wanted));
  const saved = await lookup('manifest.json');
  if (saved !== undefined) return savedImage(lookup, await textOf(saved), wanted);
  throw unusable('it is neither an OCI layout (index.json) nor a saved image (manifest.json)');
}

function choose(all: readonly Descriptor[], wanted: Digest | undefined): Descriptor {
  if (wanted !== undefined) {
    const found = all.find(({ digest }) => digest === wanted);
    if (found === undefined) throw unusable(`there is no ${wanted} in it; there are: ${listed(all)}`);
    return found;
  }
  const distinct = [...new Map(all.map((one) => [one.digest, one])).values()];
  const several = distinct.every(({ platform }) => platform === undefined) ? distinct : allForMachines(distinct);
  if (several.length > 1) throw unusable(`it holds several: name one with @sha256:…; there are: ${listed(several)}`);
  return forMachines(distinct);
}

const listed = (all: readonly Descriptor[]): string =>
  all
    .slice(0, 10)
    .map(({ digest, annotations }) =>
      [annotations?.['org.opencontainers.image.ref.name'], digest].filter(Boolean).join(' '),
    )
    .join(', ');

function blobsIn(lookup: Lookup): Blobs {
  return { open: ({ digest }) => openFile(lookup, `blobs/sha256/${digest.slice('sha256:'.length)}`) };
}

async function openFile(lookup: Lookup, name: string): Promise<ReadStream> {
  const path = await lookup(name);
  if (path === undefined) throw unusable(`${name} is missing in it`);
  return createReadStream(path);
}

/** Without a manifest the configuration's digest is the image's, and layers are known by their content alone. */
async function savedImage(lookup: Lookup, text: string, wanted: Digest | undefined): Promise<SourceImage> {
  const images = [];
  for (const { Config, Layers, RepoTags } of parseSaved(text)) {
    const path = await lookup(Config);
    if (path === undefined) throw unusable(`${Config} is missing in it`);
    const configuration = await textOf(path);
    const digest = digestOfBytes(Buffer.from(configuration));
    const layers = Layers.map((name) => ({ open: () => openFile(lookup, name) }));
    images.push({ digest, configuration, layers, name: [RepoTags?.[0], digest].filter(Boolean).join(' ') });
  }
  const found = wanted === undefined ? images : images.filter(({ digest }) => digest === wanted);
  const [image, ...more] = found;
  const names = images.map(({ name }) => name).join(', ');
  if (image === undefined) throw unusable(`there is no ${wanted} in it; there are: ${names}`);
  if (more.length > 0) throw unusable(`it holds several: name one with @sha256:…; there are: ${names}`);
  return image;
}

async function textOf(path: string): Promise<string> {
  if ((await lstat(path)).size > MAX_DOCUMENT) throw unusable('one of its documents is too long');
  return readFile(path, 'utf8');
}
