/** What `npx wrangler deploy` would upload, from a fresh clone of what is in Git, without a network. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const ROOT = new URL('../..', import.meta.url).pathname;
const run = promisify(execFile);

let clone: string;
beforeAll(async () => {
  clone = await mkdtemp(join(tmpdir(), 'moorage-wrangler-'));
  // What is checked in or about to be, without what only this checkout has.
  const { stdout } = await run('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], { cwd: ROOT });
  await writeFile(`${clone}.files`, stdout);
  await run('sh', ['-c', `tar -C "$0" --null --files-from "$1.files" -cf - | tar -C "$1" -xf -`, ROOT, clone]);
  await symlink(join(ROOT, 'node_modules'), join(clone, 'node_modules'));
});
afterAll(async () => {
  await rm(clone, { recursive: true, force: true });
  await rm(`${clone}.files`, { force: true });
});

const deploy = async () => {
  const env = {
    ...process.env,
    PATH: `${join(ROOT, 'node_modules/.bin')}:${process.env.PATH}`,
    WRANGLER_SEND_METRICS: 'false',
  };
  const { stdout } = await run('wrangler', ['deploy', '--dry-run', '--outdir', 'out'], { cwd: clone, env });
  return { stdout, worker: await readFile(join(clone, 'out/worker.js'), 'utf8') };
};

test('without a configuration', { timeout: 60_000 }, async () => {
  await rm(join(clone, 'moorage.jsonc'), { force: true });
  const { stdout, worker } = await deploy();
  expect(stdout).toContain('env.SESSION (Session)');
  expect(worker.includes('get_current_time')).toBe(false);
});

test('with the edge servers of the configuration', { timeout: 60_000 }, async () => {
  const config = { mcpServers: { time: { runtime: 'edge', tools: './servers/time.ts' }, memory: { command: 'npx' } } };
  await writeFile(join(clone, 'moorage.jsonc'), JSON.stringify(config));
  expect((await deploy()).worker.includes('get_current_time')).toBe(true);
});
