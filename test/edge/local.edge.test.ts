/** A local edge as a process: how it starts, what it refuses to start with, and what it leaves behind. */
import { readFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bundleWorker } from '../../edge/local/bundle.ts';
import { type EdgeOptions, type RunningEdge, startEdge } from '../../edge/local/edge.ts';
import { keyPair } from './scripted-origin.ts';

const SESSION_SECRET = 'the session secret of this very test';

let dir: string;
let started: RunningEdge[];
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'moorage-local-'));
  started = [];
});
afterEach(async () => {
  await Promise.all(started.map((edge) => edge.stop()));
  await rm(dir, { recursive: true, force: true });
});

const start = async (options: Partial<EdgeOptions> = {}) => {
  const { privateJwk } = await keyPair();
  const edge = await startEdge({
    host: '127.0.0.1',
    port: 0,
    stateDir: join(dir, 'edge'),
    configDir: dir,
    edgeServers: {},
    edgeKey: JSON.stringify(privateJwk),
    sessionSecret: SESSION_SECRET,
    origins: [],
    log: () => {},
    ...options,
  });
  started.push(edge);
  return { edge, key: privateJwk.d ?? '' };
};
const health = async (edge: RunningEdge) => (await fetch(`${edge.url}/healthz`)).json();

test('takes a free port, serves, and ends when told', async () => {
  const { edge } = await start();
  expect(edge.url).toBe(`http://127.0.0.1:${edge.port}`);
  expect(await health(edge)).toEqual({ ok: true });
  await edge.stop();
  await edge.exited;
  await expect(fetch(`${edge.url}/healthz`)).rejects.toThrow();
});

test('keeps its secrets out of files and out of its command line', async () => {
  const { edge, key } = await start();
  const texts = [readFileSync(`/proc/${edge.pid}/cmdline`, 'utf8')];
  for (const file of await readdir(join(dir, 'edge'), { recursive: true, withFileTypes: true })) {
    if (file.isFile()) texts.push(readFileSync(join(file.parentPath, file.name), 'latin1'));
  }
  expect(key).not.toBe('');
  for (const secret of [key, SESSION_SECRET]) expect(texts.filter((text) => text.includes(secret))).toEqual([]);
});

test('says so when its port is taken', async () => {
  const other = createServer();
  const port = await new Promise<number>((resolve) => {
    other.listen(0, '127.0.0.1', () => resolve((other.address() as { port: number }).port));
  });
  await expect(start({ port })).rejects.toThrow(`something else listens on 127.0.0.1:${port}`);
  other.close();
});

test('ends what a crashed start left behind', async () => {
  const { edge: left } = await start();
  const { edge } = await start();
  await left.exited;
  expect(await health(edge)).toEqual({ ok: true });
});

test('leaves alone a process that took the number of an earlier one', async () => {
  const { edge } = await start();
  await edge.stop();
  await writeFile(join(dir, 'edge/workerd.pid'), String(process.pid));
  expect(await health((await start()).edge)).toEqual({ ok: true });
});

test('notices when workerd is gone', async () => {
  const { edge } = await start();
  process.kill(edge.pid, 'SIGKILL');
  expect(await edge.exited).toEqual({ code: null, signal: 'SIGKILL' });
});

describe('the bundle', () => {
  const server = (text: string) => writeFile(join(dir, 'server.ts'), text);
  const bundle = () =>
    bundleWorker({ configDir: dir, edgeServers: { mine: join(dir, 'server.ts') }, outFile: join(dir, 'worker.js') });

  test('is built once, and again when a server changes', async () => {
    await server('export default () => { throw new Error("one"); };');
    expect(await bundle()).toEqual({ reused: false });
    expect(await bundle()).toEqual({ reused: true });
    await server('export default () => { throw new Error("two"); };');
    expect(await bundle()).toEqual({ reused: false });
    expect(readFileSync(join(dir, 'worker.js'), 'utf8')).toContain('"two"');
  });

  test('finds the SDK for a server in a folder without packages', async () => {
    await server(
      'import { McpServer } from "@modelcontextprotocol/server"; export default () => new McpServer({ name: "x", version: "1" });',
    );
    expect(await bundle()).toEqual({ reused: false });
  });

  test.each([
    ['a module that is not there', undefined, /Could not resolve ".*server\.ts"/],
    ['a syntax error', 'export default (\n', /server\.ts:2: Unexpected end of file/],
    ['a module of Node', 'import "node:fs"; export default 1;', /server\.ts:1: .*without modules of Node/],
    ['no default export', 'export const x = 1;', /No matching export .* for import "default"/],
  ])('is refused with file and line for %s', async (_, text, expected) => {
    if (text !== undefined) await server(text);
    await expect(bundle()).rejects.toThrow(expected);
  });
});
