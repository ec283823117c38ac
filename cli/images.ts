/** Owns `moorage images`: what the image cache of this user holds, and the removal of what nobody uses. */
import { defaultCacheDir } from '../origin/images/cache.ts';
import { type CachedImage, DEFAULT_GRACE_MS, listImages, pruneImages } from '../origin/images/garbage.ts';
import type { Command } from './command.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `images [--json]
       moorage images prune [--all] [--json]

Lists the images that machines of this user are made of: size, last use, and who uses them.
"prune" removes what no configured server and no machine has used for a week; with --all
what none has used for an hour. A router does the former by itself when it starts.
`,
  options: { json: { type: 'boolean', default: false }, all: { type: 'boolean', default: false } },
  run: async (input) => {
    const [action, ...more] = input.positionals;
    const { json, all } = input.values;
    if (more.length > 0 || (action !== undefined && action !== 'prune')) {
      throw new UsageError(`Unknown: "images ${input.positionals.join(' ')}". See "moorage help images".`);
    }
    const now = Date.now();
    if (action === 'prune') {
      const result = await pruneImages(defaultCacheDir(), { graceMs: all ? 0 : DEFAULT_GRACE_MS, now });
      const count = result.removed.length;
      process.stdout.write(
        json
          ? `${JSON.stringify(result, null, 2)}\n`
          : `Removed ${count} ${count === 1 ? 'image' : 'images'}, ${inMiB(result.bytes)}.\n`,
      );
      return 0;
    }
    if (all) throw new UsageError('--all goes with "images prune".');
    const images = await listImages(defaultCacheDir(), now);
    process.stdout.write(
      json
        ? `${JSON.stringify(images, null, 2)}\n`
        : table(
            ['IMAGE', 'SIZE', 'LAST USE', 'USED BY', 'OF'],
            images.map((image) => row(image, now)),
          ),
    );
    return 0;
  },
};

function row({ kind, digest, what, bytes, lastUse, usedBy }: CachedImage, now: number): string[] {
  const users = usedBy.length === 0 ? '–' : `${usedBy.length} ${usedBy.length === 1 ? 'machine' : 'machines'}`;
  return [`${kind}/${digest.slice(0, 12)}`, inMiB(bytes), `${ageOf(now - lastUse)} ago`, users, what];
}

const inMiB = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

function ageOf(ms: number): string {
  const minutes = Math.max(0, Math.round(ms / 60_000));
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2880 ? `${Math.round(minutes / 60)} h` : `${Math.round(minutes / 1440)} d`;
}
