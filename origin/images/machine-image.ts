/** All files that a machine boots from, in one call: built in parallel on first use, found by digest afterwards. */
import { mkdir } from 'node:fs/promises';
import type { MachineImage } from '../vm/driver.ts';
import { ensureBase } from './base.ts';
import type { Progress } from './cache.ts';
import { ensureInitrd } from './initrd.ts';
import { ensureKernel } from './kernel.ts';
import { ensureUserland } from './userland.ts';

/** Kernel, initrd and base image, without applications. Rejects with a MachineError. */
export async function ensureMachineImage(cacheDir: string, progress: Progress): Promise<MachineImage> {
  await mkdir(cacheDir, { recursive: true, mode: 0o700 });
  const [kernel, userland] = await Promise.all([ensureKernel(cacheDir, progress), ensureUserland(cacheDir, progress)]);
  const [initrd, base] = await Promise.all([
    ensureInitrd(cacheDir, kernel, userland, progress),
    ensureBase(cacheDir, userland, progress),
  ]);
  return { kernel: kernel.vmlinuz, initrd, base };
}
