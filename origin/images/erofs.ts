/** Packs a folder into a read-only erofs image that depends on nothing but the folder: no times, no random id. */
import { requireTool, run } from '../vm/command.ts';
import { INSTALL_HINT } from '../vm/host.ts';
import type { Fakeroot } from './fakeroot.ts';

const UUID = '6d6f6f72-6167-4500-8000-000000000001';

/** With `as`, files belong to whom a database of fakeroot says; else all of them to root. */
export async function packErofs(
  folder: string,
  image: string,
  as?: { fakeroot: Fakeroot; owners: string },
): Promise<void> {
  const tool = await requireTool('mkfs.erofs', INSTALL_HINT);
  const flags = ['--quiet', '-T0', '-x-1', `-U${UUID}`];
  const [command = tool, ...args] = as
    ? [...as.fakeroot, '-i', as.owners, '--', tool, ...flags, image, folder]
    : [tool, ...flags, '--all-root', image, folder];
  await run(command, args, { code: 'image-build-failed', timeoutMs: 600_000 });
}
