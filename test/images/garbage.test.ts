import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { ensureBuilt, noticingUses, withLock } from '../../origin/images/cache.ts';
import { listImages, pruneImages } from '../../origin/images/garbage.ts';
import { ConfiguredUses, noteBoot } from '../../origin/images/uses.ts';

const DAY = 86_400_000;
const quiet = () => undefined;
const now = Date.now();
let cache: string;

beforeEach(() => {
  cache = temporary();
});

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-garbage-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A folder of the cache that was last used so many days ago. */
function image(name: string, days: number): string {
  const folder = join(cache, name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'layer.erofs'), Buffer.alloc(8192, 1));
  aged(folder, days);
  return folder;
}

const aged = (path: string, days: number) => utimesSync(path, (now - days * DAY) / 1000, (now - days * DAY) / 1000);
const prune = (graceDays = 7, limit?: number) =>
  pruneImages(cache, { graceMs: graceDays * DAY, now, ...(limit === undefined ? {} : { limit }) });

test('what nobody used for the grace is removed, and nothing else', async () => {
  const [old, recent] = [image('app/old', 8), image('oci/recent', 6)];
  writeFileSync(join(cache, 'accelerator.json'), '{}');
  const { removed, bytes } = await prune();
  expect(removed).toEqual(['app/old']);
  expect(bytes).toBeGreaterThanOrEqual(8192);
  expect([existsSync(old), existsSync(recent), existsSync(join(cache, 'accelerator.json'))]).toEqual([
    false,
    true,
    true,
  ]);
  expect(readdirSync(join(cache, 'building'))).toEqual([]);
});

test('what a router of any state folder is made of stays, also when that router does not run', async () => {
  for (const name of ['app/one', 'app/two', 'app/gone']) image(name, 100);
  const [first, second] = [temporary(), temporary()];
  await new ConfiguredUses(cache, first, ['a', 'b']).note('a', ['app/one']);
  await new ConfiguredUses(cache, second, ['c']).note('c', ['app/two']);
  expect((await prune()).removed).toEqual(['app/gone']);
  const [listed] = await listImages(cache, now);
  expect(listed?.usedBy).toHaveLength(1);
  // Another life with another configuration: what was said of machines that are no more is forgotten.
  await new ConfiguredUses(cache, first, ['b']).note('b', ['app/two']);
  expect((await prune()).removed).toEqual(['app/one']);
});

test('a machine that is configured no longer keeps what it booted from, for as long as it is there', async () => {
  image('base/slept', 100);
  const state = temporary();
  await new ConfiguredUses(cache, state, ['other']).note('other', []);
  await noteBoot(join(state, 'machines', 'former'), ['base/slept']);
  expect((await prune()).removed).toEqual([]);
  rmSync(join(state, 'machines', 'former'), { recursive: true });
  expect((await prune()).removed).toEqual(['base/slept']);
});

test('a state folder that is away counts for the grace: it may be on a disk that is not mounted', async () => {
  image('app/far', 100);
  const state = temporary();
  await new ConfiguredUses(cache, state, ['a']).note('a', ['app/far']);
  rmSync(state, { recursive: true });
  expect((await prune()).removed).toEqual([]);
  const [file = ''] = readdirSync(join(cache, 'uses'));
  aged(join(cache, 'uses', file), 8);
  expect((await prune()).removed).toEqual(['app/far']);
  expect(readdirSync(join(cache, 'uses'))).toEqual([]);
});

test('to build an image is to use it, whatever time its folder was given', async () => {
  await ensureBuilt(cache, 'app', 'built', async (folder) => aged(folder, 100), quiet);
  expect((await prune()).removed).toEqual([]);
});

test('to find an image is to use it', async () => {
  image('app/found', 100);
  const { result, uses } = await noticingUses(() => ensureBuilt(cache, 'app', 'found', async () => undefined, quiet));
  expect([result, uses]).toEqual([join(cache, 'app/found'), ['app/found']]);
  expect((await prune()).removed).toEqual([]);
});

test('whatever the grace, what was used within the last hour stays; and a start removes a bounded number', async () => {
  image('app/fresh', 1 / 48);
  for (const name of ['a', 'b', 'c']) image(`npm/${name}`, 1 / 12);
  expect((await prune(0, 2)).removed).toHaveLength(2);
  expect((await prune(0)).removed).toHaveLength(1);
  expect(existsSync(join(cache, 'app/fresh'))).toBe(true);
});

test('a kind that is being built is left for the next time', async () => {
  image('app/old', 8);
  await withLock(cache, 'app', quiet, async () => expect((await prune()).removed).toEqual([]));
  expect((await prune()).removed).toEqual(['app/old']);
});

test('the list says what an image was made of', async () => {
  const npm = image('npm/n', 0);
  writeFileSync(join(npm, 'package.json'), '{"dependencies":{"@s/a":"^1.0.0"}}');
  mkdirSync(join(npm, 'node_modules'));
  const lock = { packages: { 'node_modules/@s/a': { version: '1.2.3' }, 'node_modules/b': { version: '4.0.0' } } };
  writeFileSync(join(npm, 'node_modules/.package-lock.json'), JSON.stringify(lock));
  writeFileSync(join(image('pip/p', 0), 'lock.json'), '{"wanted":["b==1"],"pip":[]}');
  writeFileSync(join(image('oci/o', 0), 'image.json'), '{"name":"oci:x"}');
  image('base/b', 0);
  const said = (await listImages(cache, now)).map(({ kind, what }) => [kind, what]).sort();
  expect(said).toEqual([
    ['base', ''],
    ['npm', '@s/a@1.2.3'],
    ['oci', 'oci:x'],
    ['pip', 'b==1'],
  ]);
});
