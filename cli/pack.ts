/** Owns how files of this host become an archive for a machine: modes, times and links kept, all of it the guest's root's. */
import { createReadStream } from 'node:fs';
import { lstat, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type Header, type Pack, pack } from 'tar-stream';

type About = Partial<Header> & { name: string };

/** `path`, a file or a folder, as an archive in which it is called `name`. A failure to read destroys the stream. */
export function packed(
  path: string,
  name: string,
  leftOut: (path: string, why: string) => void,
): AsyncIterable<unknown> {
  const archive = pack();
  add(archive, path, name, leftOut).then(
    () => archive.finalize(),
    (error: Error) => archive.destroy(error),
  );
  return archive;
}

async function add(
  archive: Pack,
  path: string,
  name: string,
  leftOut: (path: string, why: string) => void,
): Promise<void> {
  const about = await lstat(path);
  const header: About = { name, mode: about.mode & 0o7777, mtime: about.mtime, uid: 0, gid: 0 };
  if (about.isSymbolicLink()) {
    await entry(archive, { ...header, type: 'symlink', linkname: await readlink(path) });
  } else if (about.isDirectory()) {
    await entry(archive, { ...header, type: 'directory' });
    for (const child of (await readdir(path)).sort())
      await add(archive, join(path, child), `${name}/${child}`, leftOut);
  } else if (about.isFile()) {
    const to = archive.entry({ ...header, type: 'file', size: about.size });
    // A file that grows meanwhile is copied as long as it was.
    if (about.size > 0) await pipeline(createReadStream(path, { end: about.size - 1 }), to);
    else to.end(undefined);
  } else leftOut(path, 'no file');
}

function entry(archive: Pack, header: About): Promise<void> {
  return new Promise((resolve, reject) => {
    archive.entry(header, (error) => (error ? reject(error) : resolve()));
  });
}
