/** Packs a folder into a read-only erofs image that depends on nothing but the folder: no times, no owners, no random id. */
import { requireTool, run } from '../vm/command.ts';
import { INSTALL_HINT } from '../vm/host.ts';

const UUID = '6d6f6f72-6167-4500-8000-000000000001';

export async function packErofs(folder: string, image: string): Promise<void> {
  const tool = await requireTool('mkfs.erofs', INSTALL_HINT);
  await run(tool, ['--quiet', '-T0', '--all-root', '-x-1', `-U${UUID}`, image, folder], {
    code: 'image-build-failed',
    timeoutMs: 600_000,
  });
}
