/**
 * What a router that starts removes from the images that it shares with others: what a changed recipe has left behind, and
 * nothing that a machine which sleeps, a template or another router's configuration is made of.
 */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { connect, moorage as moorageCommand, moorageUp, type Running } from '../support/moorage.ts';
import { copyMachineImage } from '../support/own-cache.ts';

const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'moorage-images-'));
const cache = join(folder, 'cache');
const env = { MOORAGE_CACHE: cache };
const [ours, theirs] = [join(folder, 'ours'), join(folder, 'theirs')];

/** A server made of a folder that holds `text` beside its script. */
function server(dir: string, name: string, text: string, more: object = {}): object {
  mkdirSync(join(dir, name), { recursive: true });
  cpSync(SCRIPT, join(dir, name, 'server.mjs'));
  writeFileSync(join(dir, name, 'text'), text);
  const limits = { memory: '256M', disk: '256M' };
  return { command: 'node', args: ['server.mjs'], files: `./${name}`, limits, ...more };
}

async function up(dir: string, mcpServers: Record<string, object>): Promise<Running> {
  writeFileSync(join(dir, 'moorage.jsonc'), JSON.stringify({ mcpServers }));
  return await moorageUp(dir, { env });
}

/** Every image, as if nobody had used it for longer than it is kept. */
function age(): void {
  const time = Date.now() / 1000 - 8 * 86_400;
  for (const kind of readdirSync(cache, { withFileTypes: true })) {
    if (!kind.isDirectory()) continue;
    for (const name of readdirSync(join(cache, kind.name))) utimesSync(join(cache, kind.name, name), time, time);
  }
}

const images = (kind: string) => readdirSync(join(cache, kind)).sort();
/** The images of one kind that came with what `act` did. */
async function added(act: () => Promise<unknown>): Promise<string[]> {
  const before = new Set(images('app'));
  await act();
  return images('app').filter((name) => !before.has(name));
}

async function count(moorage: Running, name: string): Promise<string> {
  const session = await connect(moorage.url, name);
  const counted = await session.text('do', { action: 'count' });
  await session.close();
  return counted;
}

describe.skipIf(!inject('guests'))('a router that starts', () => {
  beforeAll(async () => {
    await copyMachineImage(cache);
    for (const dir of [ours, theirs, join(cache, 'app')]) mkdirSync(dir);
  });

  test('removes the old image of a recipe that changed, and none that something which sleeps is made of', async () => {
    const guest = server(ours, 'guest', 'one');
    const own = server(ours, 'own', 'two', { isolation: 'principal' });
    let moorage = await up(ours, { guest, own, changed: server(ours, 'changed', 'before') });
    onTestFinished(() => void moorage.child.kill('SIGKILL'));
    expect([await count(moorage, 'guest'), await count(moorage, 'own')]).toEqual(['1', '1']);
    await moorage.stop();
    const all = images('app');
    expect(all).toHaveLength(3);

    // Another router, while ours does not run: everything is old, and everything is ours.
    age();
    const elsewhere = server(theirs, 'elsewhere', 'four');
    const [theirApp] = await added(async () => {
      const other = await up(theirs, { elsewhere });
      await other.stop();
      expect(other.output()).not.toContain('unused image');
    });
    expect(images('app')).toEqual([...all, theirApp].sort());

    // One recipe changes, and a machine that sleeps is configured no longer.
    age();
    moorage = await up(ours, { own, changed: server(ours, 'changed', 'after') });
    await moorage.stop();
    expect(moorage.output()).toMatch(/^removed 1 unused image, \d+ MiB$/m);
    const left = images('app').filter((name) => all.includes(name));
    expect(left).toHaveLength(2);
    expect(images('app')).toHaveLength(4);

    // Both are of use: what sleeps wakes as it was, and the template makes another machine.
    age();
    moorage = await up(ours, { guest, own });
    expect(await count(moorage, 'guest')).toBe('2');
    const machines = JSON.parse(await moorageCommand(ours, 'machines', '--json')) as { key: string; machine: string }[];
    const mine = machines.find(({ key }) => key.startsWith('own.'));
    await moorageCommand(ours, 'machines', '--rm', mine?.key ?? 'none');
    expect(await count(moorage, 'own')).toBe('1');
    expect(moorage.output()).toMatch(/machine own\.p-\w+: made from a template/);
    expect(moorage.output()).not.toMatch(/booting/);
    await moorage.stop();
  });
});
