/**
 * A root file system as a container image's layers make it (OCI image specification, "Image Layer Filesystem
 * Changeset"). Pure: nothing of an image touches a disk before all of its layers are applied, so neither a name nor a link
 * in a layer can lead out of the folder that the result is written to.
 *
 * Invariants: a name is one component, never empty, `.` or `..`; links are followed within this tree alone, and only where
 * they are parents; a whiteout removes what earlier layers brought and nothing of its own layer.
 */
import { MachineError } from '../../vm/error.ts';

export interface Owned {
  /** Permissions with set-id and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
}
export type Inode =
  | (Owned & { type: 'folder' })
  /** `content` names the file's bytes to whoever keeps them; undefined for an empty file. */
  | (Owned & { type: 'file'; content: string | undefined })
  | (Owned & { type: 'link'; target: string });

export interface Entry {
  inode: Inode;
  /** The layer that wrote it last. */
  layer: number;
  /** Of a folder. */
  children: Map<string, Entry>;
}

const MAX_ENTRIES = 1_000_000;
const MAX_DEPTH = 256;
const MAX_FOLLOWED = 40;
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';

export class LayerTree {
  readonly root: Entry = folder(0, { mode: 0o755, uid: 0, gid: 0 });
  #layer = 0;
  #added = 0;

  /** What follows belongs to the next layer. */
  nextLayer(): void {
    this.#layer += 1;
  }

  /** Adds what an archive names. Throws MachineError `image-build-failed`. */
  add(path: string, inode: Inode): void {
    const names = partsOf(path);
    const name = names.pop();
    if (name === undefined) {
      if (inode.type === 'folder') this.root.inode = inode;
      return;
    }
    const parent = this.#folder(names, path);
    if (name === OPAQUE) {
      for (const [child, entry] of parent.children) this.#removeEarlier(parent, child, entry);
    } else if (name.startsWith(`${WHITEOUT}${WHITEOUT}`)) {
      // Bookkeeping of aufs.
    } else if (name.startsWith(WHITEOUT)) {
      const hidden = parent.children.get(name.slice(WHITEOUT.length));
      if (hidden) this.#removeEarlier(parent, name.slice(WHITEOUT.length), hidden);
    } else this.#put(parent, name, inode);
  }

  /** Adds a second name of a file. Throws as `add`, also where there is no such file. */
  addHardLink(path: string, target: string): void {
    const names = partsOf(path);
    const name = names.pop();
    const found = this.find(target, false);
    if (name === undefined || found === undefined || found.inode.type === 'folder') {
      throw damaged(`"${path}" is a link to "${target}", which is no file`);
    }
    this.#put(this.#folder(names, path), name, found.inode);
  }

  /** What lies at a path, symbolic links within the tree followed (of the last name only with `follow`). */
  find(path: string, follow = true): Entry | undefined {
    const names = partsOf(path);
    const last = names.pop();
    if (last === undefined) return this.root;
    const way = this.#walk(names, path, false);
    const entry = way?.at(-1)?.children.get(last);
    if (!follow || way === undefined || entry?.inode.type !== 'link') return entry;
    return this.#walk([...names, last], path, false)?.at(-1);
  }

  #put(parent: Entry, name: string, inode: Inode): void {
    this.#added += 1;
    if (this.#added > MAX_ENTRIES) throw damaged(`it has more than ${MAX_ENTRIES} files`);
    const known = parent.children.get(name);
    if (known?.inode.type === 'folder' && inode.type === 'folder') {
      known.inode = inode;
      known.layer = this.#layer;
    } else parent.children.set(name, { inode, layer: this.#layer, children: new Map() });
  }

  #removeEarlier(parent: Entry, name: string, entry: Entry): void {
    for (const [child, inner] of entry.children) this.#removeEarlier(entry, child, inner);
    if (entry.layer < this.#layer && entry.children.size === 0) parent.children.delete(name);
  }

  #folder(names: readonly string[], path: string): Entry {
    const found = this.#walk(names, path, true)?.at(-1);
    if (found === undefined) throw damaged(`"${path}" lies in no folder`);
    return found;
  }

  /** The way from the root to a folder, each member within the one before it; what is missing is made with `make`. */
  #walk(names: readonly string[], path: string, make: boolean): Entry[] | undefined {
    const way: Entry[] = [this.root];
    const ahead = [...names].reverse();
    for (let followed = 0; ahead.length > 0; ) {
      const name = ahead.pop() ?? '';
      if (name === '..') {
        if (way.length > 1) way.pop();
        continue;
      }
      const here = way.at(-1) ?? this.root;
      let next = here.children.get(name);
      if (next?.inode.type === 'link') {
        followed += 1;
        if (followed > MAX_FOLLOWED) throw damaged(`"${path}" follows links without end`);
        const { target } = next.inode;
        if (target.startsWith('/')) way.length = 1;
        ahead.push(...linkParts(target).reverse());
        continue;
      }
      if (next === undefined) {
        if (!make) return undefined;
        next = folder(this.#layer, { mode: 0o755, uid: 0, gid: 0 });
        here.children.set(name, next);
      }
      if (next.inode.type !== 'folder') {
        // `find` may end at a file; a file is no parent.
        if (make || ahead.length > 0) return undefined;
      }
      way.push(next);
      if (way.length > MAX_DEPTH) throw damaged(`"${path}" is too deep`);
    }
    return way;
  }
}

const folder = (layer: number, owned: Owned): Entry => ({
  inode: { type: 'folder', ...owned },
  layer,
  children: new Map(),
});

/** The components of a name in an archive. Throws for those that leave the root. */
function partsOf(path: string): string[] {
  const parts = linkParts(path);
  if (parts.includes('..') || path.includes('\0')) throw damaged(`the name "${path}" leaves the image`);
  if (parts.some((part) => Buffer.byteLength(part) > 255)) throw damaged('a name in it is too long');
  return parts;
}

const linkParts = (target: string): string[] => target.split('/').filter((part) => part !== '' && part !== '.');

/** Names are quoted from their beginning: they may be as long as their author likes. */
function damaged(why: string): MachineError {
  const short = why.replaceAll(/"([^"]{100})[^"]*"/g, '"$1…"');
  return new MachineError('image-build-failed', `the image is damaged or hostile: ${short}`);
}
