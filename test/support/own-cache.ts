/** A cache of images that belongs to one test, with what every machine is made of in it already: built once for all tests. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { defaultCacheDir, noticingUses } from '../../origin/images/cache.ts';
import { ensureMachineImage } from '../../origin/images/machine-image.ts';

export async function copyMachineImage(to: string): Promise<void> {
  const from = defaultCacheDir();
  const { uses } = await noticingUses(() => ensureMachineImage(from, () => undefined));
  for (const folder of uses) cpSync(join(from, folder), join(to, folder), { recursive: true });
}
