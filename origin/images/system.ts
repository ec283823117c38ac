/**
 * The system layer: Debian packages with all that they depend on, laid over the base by the machines that ask for them.
 * `system/<digest>/` holds `layer.erofs`, `lock.json` with the exact packages, and for Python alone also the tree itself
 * (`root`), whose interpreter installs packages on the host.
 */
import { lstat, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { digestOf, ensureBuilt, type Progress } from './cache.ts';
import { type DebianPackage, openPackageSource, unpackWithDependencies } from './debian.ts';
import { packErofs } from './erofs.ts';
import { compilePython, type Interpreter, interpreterIn } from './python.ts';

const VERSION = 1;
export const PYTHON_PACKAGE = 'python3';
/** What no program reads. */
const DROPPED = ['doc', 'man', 'info', 'locale', 'lintian', 'bug'];
const CERTIFICATES = 'usr/share/ca-certificates/mozilla';

interface Lock {
  wanted: readonly string[];
  apt: readonly DebianPackage[];
}

export interface SystemLayer {
  path: string;
  digest: string;
  folder: string;
}

/** The layer with these packages (`name` or `name=version`). Rejects with a MachineError. */
export async function ensureSystem(
  cacheDir: string,
  packages: readonly string[],
  progress: Progress,
): Promise<SystemLayer> {
  const names = [...new Set(packages)].sort();
  const digest = digestOf({ kind: 'system', version: VERSION, names });
  const folder = await ensureBuilt(cacheDir, 'system', digest, (to) => build(cacheDir, names, to, progress), progress);
  return { path: join(folder, 'layer.erofs'), digest, folder };
}

/** Python as the machines have it, to be run on the host. */
export async function ensurePython(
  cacheDir: string,
  progress: Progress,
): Promise<{ interpreter: Interpreter; digest: string }> {
  const { folder } = await ensureSystem(cacheDir, [PYTHON_PACKAGE], progress);
  const lock = await readFile(join(folder, 'lock.json'), 'utf8');
  return { interpreter: await interpreterIn(join(folder, 'root')), digest: digestOf({ lock }) };
}

async function build(cacheDir: string, names: readonly string[], to: string, progress: Progress): Promise<void> {
  progress(`downloading ${names.join(' ')} with what they need`);
  const source = await openPackageSource(cacheDir, names[0]?.split('=')[0] ?? '', progress);
  const root = join(to, 'root');
  const packages = await unpackWithDependencies(source, names, root);
  for (const name of DROPPED) await rm(join(root, 'usr/share', name), { recursive: true, force: true });
  await joinPrograms(root);
  await collectCertificates(root);
  if (packages.some(({ file }) => file.startsWith(`${PYTHON_PACKAGE}_`))) {
    progress('compiling the Python library');
    await symlink('python3', join(root, 'usr/bin/python')).catch(() => undefined);
    const interpreter = await interpreterIn(root);
    await compilePython(interpreter, interpreter.library, root);
  }
  progress('packing the system layer');
  await packErofs(root, join(to, 'layer.erofs'));
  if (!(names.length === 1 && names[0] === PYTHON_PACKAGE)) await rm(root, { recursive: true });
  await writeFile(join(to, 'lock.json'), JSON.stringify({ wanted: names, apt: packages } satisfies Lock));
}

/** Scripts name programs in /bin and in /usr/bin; which of the two holds them differs between releases. */
async function joinPrograms(root: string): Promise<void> {
  for (const folder of ['bin', 'sbin']) {
    const [short, long] = [folder, `usr/${folder}`];
    await mkdir(join(root, short), { recursive: true });
    await mkdir(join(root, long), { recursive: true });
    for (const [from, to] of [
      [short, long],
      [long, short],
    ] as const) {
      for (const name of await readdir(join(root, from))) {
        if (!(await exists(join(root, to, name)))) await symlink(`/${from}/${name}`, join(root, to, name));
      }
    }
  }
}

/** What the package's script would do: one file with all authorities. */
async function collectCertificates(root: string): Promise<void> {
  const names = await readdir(join(root, CERTIFICATES)).catch((): string[] => []);
  if (names.length === 0) return;
  const all = await Promise.all(names.sort().map((name) => readFile(join(root, CERTIFICATES, name), 'utf8')));
  await mkdir(join(root, 'etc/ssl/certs'), { recursive: true });
  await writeFile(join(root, 'etc/ssl/certs/ca-certificates.crt'), all.join(''));
}

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  );
