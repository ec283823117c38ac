/**
 * fakeroot, from the distribution's packages: it tells a program other owners and modes than files have.
 * `fakeroot/<digest>/` holds the two packages, unpacked.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { MachineError } from '../vm/error.ts';
import { digestOf, ensureBuilt, type Progress } from './cache.ts';
import { openPackageSource, unpackPackages } from './debian.ts';

const RECIPE = { kind: 'fakeroot', version: 1 };
const PACKAGES = ['fakeroot', 'libfakeroot'];

/** Command and arguments that go before `-i DATABASE -- PROGRAM …`. */
export type Fakeroot = readonly string[];

export async function ensureFakeroot(cacheDir: string, progress: Progress): Promise<Fakeroot> {
  const folder = await ensureBuilt(
    cacheDir,
    'fakeroot',
    digestOf(RECIPE),
    async (to) => {
      progress('downloading fakeroot');
      const source = await openPackageSource(cacheDir, 'fakeroot', progress);
      await unpackPackages(source, PACKAGES, to);
    },
    progress,
  );
  const files = await readdir(folder, { recursive: true });
  const named = (name: string) => files.find((file) => file.endsWith(`/${name}`));
  const [program, daemon, library] = ['fakeroot-sysv', 'faked-sysv', 'libfakeroot-sysv.so'].map(named);
  if (program === undefined || daemon === undefined || library === undefined) {
    throw new MachineError('image-build-failed', `the packages ${PACKAGES.join(' and ')} do not hold what they should`);
  }
  return [join(folder, program), '-l', join(folder, library), '-f', join(folder, daemon)];
}
