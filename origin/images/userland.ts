/**
 * The distribution's files that every guest needs: a static busybox, the C and C++ runtime libraries, and OpenSSH's
 * sftp-server. `userland/<digest>/` holds `busybox`, `sftp-server`, `lib/<soname>` and `meta.json`. Never host copies: the
 * host's libraries may be newer than its packages, patched, or not glibc at all.
 */
import { chmod, copyFile, mkdir, readdir, readFile, readlink, realpath, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../vm/command.ts';
import { MachineError } from '../vm/error.ts';
import { digestOf, ensureBuilt, type Progress } from './cache.ts';
import { openPackageSource, unpackPackages } from './debian.ts';

const RECIPE = { kind: 'userland', version: 2 };
const PACKAGES = ['busybox-static', 'openssh-sftp-server', 'libc6', 'libstdc++6', 'libgcc-s1'];
const LIBRARIES = [
  'ld-linux-x86-64.so.2',
  'libc.so.6',
  'libm.so.6',
  'libdl.so.2',
  'libpthread.so.0',
  'librt.so.1',
  'libutil.so.1',
  'libresolv.so.2',
  'libnss_files.so.2',
  'libnss_dns.so.2',
  'libgcc_s.so.1',
  'libstdc++.so.6',
];

export interface Userland {
  busybox: string;
  /** What speaks SFTP to those who come by SSH: over its standard input and output, without any SSH of its own. */
  sftpServer: string;
  /** Names that the busybox answers to. */
  applets: readonly string[];
  /** Absolute paths of the libraries, each named by its soname. */
  libraries: readonly string[];
  digest: string;
}

interface Meta {
  packages: string[];
  applets: string[];
}

/** The userland, downloaded on first use. Rejects with a MachineError. */
export async function ensureUserland(cacheDir: string, progress: Progress): Promise<Userland> {
  const folder = await ensureBuilt(
    cacheDir,
    'userland',
    digestOf(RECIPE),
    (to) => build(cacheDir, to, progress),
    progress,
  );
  const meta = JSON.parse(await readFile(join(folder, 'meta.json'), 'utf8')) as Meta;
  return {
    busybox: join(folder, 'busybox'),
    sftpServer: join(folder, 'sftp-server'),
    applets: meta.applets,
    libraries: LIBRARIES.map((name) => join(folder, 'lib', name)),
    digest: digestOf({ ...RECIPE, packages: meta.packages }),
  };
}

async function build(cacheDir: string, to: string, progress: Progress): Promise<void> {
  progress('downloading busybox and runtime libraries');
  const source = await openPackageSource(cacheDir, 'busybox-static', progress);
  const unpacked = join(to, 'unpacked');
  const packages = await unpackPackages(source, PACKAGES, unpacked);
  const found = new Map<string, string>();
  for (const entry of await readdir(unpacked, { recursive: true, withFileTypes: true })) {
    // Of a package's symbolic links only those to a file beside them are followed; absolute ones would leave the folder.
    if (!entry.isDirectory()) found.set(entry.name, join(entry.parentPath, entry.name));
  }
  await mkdir(join(to, 'lib'));
  for (const name of LIBRARIES) await copyInside(unpacked, found.get(name), name, join(to, 'lib', name));
  for (const name of ['busybox', 'sftp-server']) {
    await copyInside(unpacked, found.get(name), name, join(to, name));
  }
  const applets = (await run(join(to, 'busybox'), ['--list'], { code: 'image-build-failed' }))
    .split('\n')
    .filter(Boolean);
  await writeFile(join(to, 'meta.json'), JSON.stringify({ packages, applets } satisfies Meta));
  await rm(unpacked, { recursive: true });
}

async function copyInside(root: string, from: string | undefined, name: string, to: string): Promise<void> {
  if (from === undefined) {
    throw new MachineError('image-build-failed', `${name} is in none of the packages ${PACKAGES.join(', ')}`);
  }
  let real: string;
  try {
    real = await realpath(from);
  } catch {
    // An absolute link (/lib64/ld-linux… on older releases) is meant relative to the root of the package.
    real = join(root, await readlink(from));
  }
  await copyFile(real, to);
  await chmod(to, 0o755);
}
