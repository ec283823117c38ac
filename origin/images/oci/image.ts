/**
 * The root file system of an OCI image, as machines boot it.
 *
 * `oci-name/<digest>/name.json` says which image a name meant when it was first asked for (a file's or folder's name stands
 * for its present content); `oci/<digest>/` holds that image: `layer.erofs`, and `image.json` with how it is run.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Digest, type OciReference, parseOciReference } from '../../../shared/config/oci-reference.ts';
import { MachineError } from '../../vm/error.ts';
import { digestOf, ensureBuilt, isFolder, type Progress } from '../cache.ts';
import { ensureFakeroot } from '../fakeroot.ts';
import { unpackArchive } from './archive.ts';
import { imageIn, lookupIn } from './folder.ts';
import { readLayers } from './layers.ts';
import { parseConfiguration } from './manifest.ts';
import { imageAt } from './registry.ts';
import { type RunConfiguration, runConfigurationOf } from './run-as.ts';
import type { SourceImage } from './source.ts';
import type { LayerTree } from './tree.ts';
import { packTree } from './write-tree.ts';

const VERSION = 1;
/** Of all layers unpacked, and of a saved image's archive. */
const MAX_BYTES = 16 * 1024 ** 3;
const MAX_USERS_FILE = 1024 * 1024;

export interface OciImage {
  path: string;
  /** Of its manifest. */
  digest: Digest;
  run: RunConfiguration;
}

/** The image of a name (`oci:…`), fetched and built when it is not there. Rejects with a MachineError. */
export async function ensureOci(
  cacheDir: string,
  name: string,
  configDir: string,
  progress: Progress,
): Promise<OciImage> {
  const reference = parseOciReference(name);
  if (reference === undefined) throw new MachineError('image-unavailable', `"${name}" names no image`);
  const source = new Source(cacheDir, reference, configDir, progress);
  try {
    const named = await ensureBuilt(
      cacheDir,
      'oci-name',
      await source.key(),
      async (to) => {
        const { digest } = await source.open();
        await writeFile(join(to, 'name.json'), JSON.stringify({ name, manifest: digest }));
      },
      progress,
    );
    const { manifest } = JSON.parse(await readFile(join(named, 'name.json'), 'utf8')) as { manifest: Digest };
    const folder = await ensureBuilt(
      cacheDir,
      'oci',
      digestOf({ kind: 'oci', version: VERSION, manifest }),
      async (to) => build(cacheDir, name, await source.open(manifest), to, progress),
      progress,
    );
    const { run } = JSON.parse(await readFile(join(folder, 'image.json'), 'utf8')) as { run: RunConfiguration };
    return { path: join(folder, 'layer.erofs'), digest: manifest, run };
  } catch (cause) {
    if (cause instanceof MachineError) throw cause;
    // A damaged archive, a full disk, names longer than the host's: one server's image, not the router's end.
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MachineError('image-build-failed', `the image ${name} cannot be built: ${why}`, { cause });
  } finally {
    await source.close();
  }
}

/** Where an image comes from. Nothing is opened before it is needed, nothing twice. */
class Source {
  readonly #cacheDir: string;
  readonly #reference: OciReference;
  readonly #path: string;
  readonly #progress: Progress;
  #opened: Promise<SourceImage> | undefined;
  /** Of an unpacked archive. */
  #folder: string | undefined;

  constructor(cacheDir: string, reference: OciReference, configDir: string, progress: Progress) {
    this.#cacheDir = cacheDir;
    this.#reference = reference;
    this.#path = reference.kind === 'path' ? resolve(configDir, reference.path) : '';
    this.#progress = progress;
  }

  /** What stands for the name in the cache. */
  async key(): Promise<string> {
    const reference = this.#reference;
    if (reference.kind === 'registry') return digestOf({ kind: 'oci-name', version: VERSION, reference });
    const file = (await isFolder(this.#path)) ? join(this.#path, 'index.json') : this.#path;
    try {
      const { size, mtimeMs } = await stat(file);
      return digestOf({ kind: 'oci-name', version: VERSION, reference, file, size, mtimeMs });
    } catch (cause) {
      const why = `"${reference.path}" is neither a saved image nor a folder with an OCI layout (index.json)`;
      throw new MachineError('image-unavailable', why, { cause });
    }
  }

  /** The image itself; of a registry the one with this manifest, whatever its name means by now. */
  open(manifest?: Digest): Promise<SourceImage> {
    this.#opened ??= this.#open(manifest);
    return this.#opened;
  }

  async close(): Promise<void> {
    if (this.#folder !== undefined) await rm(this.#folder, { recursive: true, force: true });
  }

  async #open(manifest: Digest | undefined): Promise<SourceImage> {
    const reference = this.#reference;
    if (reference.kind === 'registry') {
      this.#progress(`asking ${reference.registry} for ${reference.repository}`);
      return imageAt(reference, manifest);
    }
    if (await isFolder(this.#path)) return imageIn(lookupIn(this.#path), reference.digest);
    this.#progress('unpacking the saved image');
    // As the sweeper of half-built folders knows them.
    this.#folder = join(this.#cacheDir, 'building', `archive-${process.pid}-${randomUUID().slice(0, 8)}`);
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    return imageIn(await unpackArchive(this.#path, this.#folder, { left: MAX_BYTES }), reference.digest);
  }
}

async function build(
  cacheDir: string,
  name: string,
  source: SourceImage,
  to: string,
  progress: Progress,
): Promise<void> {
  const configuration = parseConfiguration(source.configuration);
  const fakeroot = await ensureFakeroot(cacheDir, progress);
  const contents = join(to, 'contents');
  await mkdir(contents);
  const tree = await readLayers({
    layers: source.layers,
    diffIds: configuration.rootfs.diff_ids,
    contents,
    budget: { left: MAX_BYTES },
    progress,
  });
  const users = {
    passwd: await textIn(tree, '/etc/passwd', contents),
    group: await textIn(tree, '/etc/group', contents),
  };
  const run = runConfigurationOf(configuration, users);
  if (tree.find(run.workdir) === undefined) tree.add(run.workdir, { type: 'folder', mode: 0o755, uid: 0, gid: 0 });
  progress('packing the image');
  await packTree(tree, contents, to, fakeroot);
  for (const folder of ['root', 'contents']) await rm(join(to, folder), { recursive: true });
  await rm(join(to, 'owners'));
  await writeFile(join(to, 'image.json'), JSON.stringify({ name, manifest: source.digest, run }));
}

async function textIn(tree: LayerTree, path: string, contents: string): Promise<string> {
  const inode = tree.find(path)?.inode;
  if (inode?.type !== 'file' || inode.content === undefined) return '';
  const file = join(contents, inode.content);
  return (await stat(file)).size > MAX_USERS_FILE ? '' : readFile(file, 'utf8');
}
