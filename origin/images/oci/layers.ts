/**
 * Reads an image's layers, in order, into a tree: every digest checked, every byte counted. Contents go to numbered files
 * of a folder; names, owners and links stay in the tree.
 */
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { extract, type Header } from 'tar-stream';
import { MachineError } from '../../vm/error.ts';
import { unpacked } from './compression.ts';
import { type Budget, counting } from './counting.ts';
import { unusable } from './manifest.ts';
import type { SourceLayer } from './source.ts';
import { LayerTree } from './tree.ts';

export interface LayersOptions {
  readonly layers: readonly SourceLayer[];
  /** Digests of the layers unpacked, as the configuration names them. */
  readonly diffIds: readonly string[];
  /** Where contents go. */
  readonly contents: string;
  readonly budget: Budget;
  readonly progress: (line: string) => void;
}

/** Rejects with a MachineError. */
export async function readLayers(options: LayersOptions): Promise<LayerTree> {
  const { layers, diffIds } = options;
  if (layers.length !== diffIds.length) throw unusable('its manifest and configuration name different layers');
  const tree = new LayerTree();
  const files = { count: 0 };
  for (const [index, layer] of layers.entries()) {
    options.progress(`reading layer ${index + 1} of ${layers.length}${layer.size ? `, ${inMiB(layer.size)} MiB` : ''}`);
    tree.nextLayer();
    await readLayer(layer, diffIds[index] ?? '', tree, files, options);
  }
  return tree;
}

const inMiB = (bytes: number): string => (bytes / 1024 / 1024).toFixed(1);

async function readLayer(
  layer: SourceLayer,
  diffId: string,
  tree: LayerTree,
  files: { count: number },
  { contents, budget }: LayersOptions,
): Promise<void> {
  const stored = counting({ left: layer.size ?? Number.POSITIVE_INFINITY });
  const plain = counting(budget);
  const archive = extract();
  const read = async () => {
    for await (const entry of archive) {
      const { header } = entry;
      if (isFile(header)) {
        const content = header.size ? String(files.count++) : undefined;
        if (content === undefined) entry.resume();
        else await pipeline(entry, createWriteStream(join(contents, content), { mode: 0o600, flags: 'wx' }));
        tree.add(header.name, { type: 'file', content, ...ownedBy(header) });
      } else {
        addSpecial(tree, header);
        entry.resume();
      }
    }
  };
  const raw = await layer.open();
  try {
    const counted = raw.pipe(stored.through);
    raw.once('error', (error) => counted.destroy(error));
    await Promise.all([pipeline(await unpacked(counted), plain.through, archive), read()]);
  } catch (cause) {
    if (cause instanceof MachineError) throw cause;
    throw unusable(`a layer cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`);
  } finally {
    raw.destroy();
  }
  if (layer.digest !== undefined && stored.digest() !== layer.digest) {
    throw unusable(`${layer.digest} has other content than it says`);
  }
  if (plain.digest() !== diffId) throw unusable(`its layer ${diffId} has other content than it says`);
}

/** A file whose bytes are all there. In its pax form a sparse one comes as a file that holds a map and pieces. */
const isFile = (header: Header): boolean =>
  (header.type === 'file' || header.type === 'contiguous-file') && !isSparse(paxOf(header));

const paxOf = (header: Header): Record<string, string> => (header as { pax?: Record<string, string> | null }).pax ?? {};
const isSparse = (pax: Record<string, string>): boolean =>
  Object.keys(pax).some((key) => key.startsWith('GNU.sparse.'));

/** Folders and links. Devices and pipes are left out: a machine has its own /dev. Throws for what it does not know. */
function addSpecial(tree: LayerTree, header: Header): void {
  const { name, linkname } = header;
  switch (header.type) {
    case 'directory':
      tree.add(name, { type: 'folder', ...ownedBy(header) });
      return;
    case 'symlink':
      tree.add(name, { type: 'link', target: linkname ?? '', ...ownedBy(header) });
      return;
    case 'link':
      tree.addHardLink(name, linkname ?? '');
      return;
    case 'character-device':
    case 'block-device':
    case 'fifo':
      return;
    default:
      throw unusable(
        'a layer holds an entry of an unknown kind (a sparse file, perhaps: pack it with its holes filled)',
      );
  }
}

/** Owners above 2097151 are in a pax record. */
function ownedBy(header: Header): { mode: number; uid: number; gid: number } {
  const { mode, uid, gid } = header;
  const pax = paxOf(header);
  const number = (text: string | undefined, fallback: number | undefined) => {
    const value = text === undefined ? (fallback ?? 0) : Number(text);
    return Number.isInteger(value) && value >= 0 && value < 2 ** 32 ? value : 0;
  };
  return { mode: (mode ?? 0o644) & 0o7777, uid: number(pax.uid, uid), gid: number(pax.gid, gid) };
}
