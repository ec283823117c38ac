/**
 * A tree of layers as a folder, and as the image that machines boot: owners and modes that we, without root, cannot give
 * to files are told to mkfs.erofs by fakeroot, whose database (its `-i`) is written from the tree.
 */
import { link, lstat, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packErofs } from '../erofs.ts';
import type { Fakeroot } from '../fakeroot.ts';
import type { Entry, Inode, LayerTree } from './tree.ts';

const TYPE_BITS = { folder: 0o040000, file: 0o100000, link: 0o120000 } as const;

/** Writes `<to>/layer.erofs`; contents are taken from their folder, which is of no more use then. */
export async function packTree(tree: LayerTree, contents: string, to: string, fakeroot: Fakeroot): Promise<void> {
  const root = join(to, 'root');
  const owners = join(to, 'owners');
  const paths = new Map<Inode, string>();
  await write(tree.root, root, contents, paths);
  const lines: string[] = [];
  for (const [inode, path] of paths) {
    const { dev, ino, nlink } = await lstat(path, { bigint: true });
    const mode = (TYPE_BITS[inode.type] | inode.mode).toString(8);
    lines.push(
      `dev=${dev.toString(16)},ino=${ino},mode=${mode},uid=${inode.uid},gid=${inode.gid},nlink=${nlink},rdev=0\n`,
    );
  }
  await writeFile(owners, lines.join(''), { mode: 0o600 });
  await packErofs(root, join(to, 'layer.erofs'), { fakeroot, owners });
}

/** Into folders that were made here alone: a link that was written is never followed. */
async function write(entry: Entry, path: string, contents: string, paths: Map<Inode, string>): Promise<void> {
  const { inode } = entry;
  const known = paths.get(inode);
  if (known !== undefined) {
    await link(known, path);
    return;
  }
  paths.set(inode, path);
  if (inode.type === 'link') await symlink(inode.target, path);
  else if (inode.type === 'file') {
    if (inode.content === undefined) await writeFile(path, '', { mode: 0o600, flag: 'wx' });
    else await rename(join(contents, inode.content), path);
  } else {
    await mkdir(path, { mode: 0o700 });
    for (const [name, child] of entry.children) await write(child, join(path, name), contents, paths);
  }
}
