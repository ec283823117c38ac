/**
 * A saved image (`docker save`, `oci-archive`) as files: each member of the tar becomes a numbered file of a folder, so
 * that no name in the archive decides where anything is written. Compressed archives are read as well.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { join, posix } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { extract } from 'tar-stream';
import { unpacked } from './compression.ts';
import { type Budget, counting } from './counting.ts';
import type { Lookup } from './folder.ts';
import { unusable } from './manifest.ts';

const MAX_MEMBERS = 10_000;

/** Unpacks the archive into `folder`. Rejects with `image-build-failed`. */
export async function unpackArchive(file: string, folder: string, budget: Budget): Promise<Lookup> {
  const files = new Map<string, string>();
  const links = new Map<string, string>();
  const archive = extract();
  const read = async () => {
    let members = 0;
    for await (const entry of archive) {
      const { type, linkname } = entry.header;
      const name = posix.normalize(entry.header.name);
      members += 1;
      if (members > MAX_MEMBERS) throw unusable('its archive has too many members');
      if (type === 'file' || type === 'contiguous-file') {
        const path = join(folder, String(members));
        await pipeline(entry, createWriteStream(path, { mode: 0o600 }));
        files.set(name, path);
      } else {
        // Older Dockers save a layer once and link to it.
        if (type === 'symlink') links.set(name, posix.normalize(posix.join(posix.dirname(name), linkname ?? '')));
        if (type === 'link') links.set(name, posix.normalize(linkname ?? ''));
        entry.resume();
      }
    }
  };
  await Promise.all([pipeline(await unpacked(createReadStream(file)), counting(budget).through, archive), read()]);
  return async (name) => {
    const plain = posix.normalize(name);
    return files.get(plain) ?? files.get(links.get(plain) ?? '');
  };
}
