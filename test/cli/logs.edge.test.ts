/** `moorage logs` beside a running router: what a real server wrote, searched, followed over rotations, and within its bound. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import {
  type Connected,
  connect,
  moorage as moorageCommand,
  moorageUp,
  project,
  type Running,
} from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const { dir, state } = project({
  mcpServers: {
    notes: { runtime: 'process', command: process.execPath, args: [join(ROOT, 'test/support/scripted-server.mjs')] },
  },
});
/** Less than is kept (five files of 4 MiB) and more than four of them. */
const FLOOD = { times: 3_000, line: 'x'.repeat(6_000) };

let moorage: Running;
let session: Connected;
const logs = (...args: string[]) => moorageCommand(dir, 'logs', 'notes', ...args);
const write = (args: { line: string; times?: number }) => session.text('do', { action: 'stderr', ...args });

beforeAll(async () => {
  moorage = await moorageUp(dir);
  session = await connect(moorage.url, 'notes');
});
afterAll(async () => {
  await session.close();
  await moorage.stop();
});

interface Following {
  readonly child: ChildProcess;
  readonly texts: string[];
  readonly complaints: string[];
  until(condition: (texts: readonly string[]) => boolean): Promise<void>;
}

/** `moorage logs notes --follow --json`, and the texts of its lines as they come. */
function follow(...args: string[]): Following {
  const where = ['--config', join(dir, 'moorage.jsonc'), '--state', state];
  const child = spawn(process.execPath, ['cli/moorage.ts', 'logs', 'notes', '--follow', '--json', ...where, ...args], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const [texts, complaints]: [string[], string[]] = [[], []];
  let check: () => void = () => undefined;
  createInterface({ input: child.stdout }).on('line', (line) => {
    texts.push((JSON.parse(line) as { text: string }).text);
    check();
  });
  createInterface({ input: child.stderr }).on('line', (line) => complaints.push(line));
  const until = (condition: (texts: readonly string[]) => boolean) =>
    new Promise<void>((resolve) => {
      check = () => condition(texts) && resolve();
      check();
    });
  return { child, texts, complaints, until };
}

const numbersIn = (texts: readonly string[]) =>
  texts.filter((text) => text.endsWith(FLOOD.line)).map((text) => Number.parseInt(text, 10));
const upTo = (count: number) => Array.from({ length: count }, (_, n) => n + 1);

test('what a server wrote is found by text, expression, age and number, with the time and machine of each line', async () => {
  await write({ line: 'connected to db-1' });
  await write({ line: 'ECONNREFUSED db-2 €' });
  expect(await logs()).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z notes {2}connected to db-1$/m);
  expect(await logs('--grep', 'REFUSED')).toMatch(/^\S+ notes {2}ECONNREFUSED db-2 €\n$/);
  const found = (await logs('--regexp', '^(conn|ECONN).* db-\\d', '--since', '1h', '--json')).trim().split('\n');
  expect(found.map((line) => JSON.parse(line) as object)).toEqual([
    { at: expect.stringMatching(/Z$/), server: 'notes', machine: 'notes', text: 'connected to db-1' },
    { at: expect.stringMatching(/Z$/), server: 'notes', machine: 'notes', text: 'ECONNREFUSED db-2 €' },
  ]);
  expect(await logs('--grep', 'db-', '--last', '1')).toContain('db-2');
  expect(await logs('--grep', 'db-', '--since', '2100-01-01')).toBe('');
  expect(await logs('--machine', 'another')).toBe('');
  await expect(moorageCommand(dir, 'logs', 'nobody')).rejects.toThrow('Nothing is kept of a server "nobody"');
});

test('a follower tells each line once, in order, while files are put aside under it; what is kept is bounded', async () => {
  await write({ line: 'before' });
  const [all, some] = [follow(), follow('--grep', 'after')];
  await all.until((texts) => texts.includes('before'));
  await write(FLOOD);
  await write({ line: 'after one' });
  await all.until((texts) => texts.includes('after one'));
  expect(numbersIn(all.texts)).toEqual(upTo(FLOOD.times));
  await write(FLOOD);
  await write({ line: 'after two' });
  await Promise.all([all, some].map(({ until }) => until((texts) => texts.includes('after two'))));
  expect(numbersIn(all.texts)).toEqual([...upTo(FLOOD.times), ...upTo(FLOOD.times)]);
  expect(some.texts).toEqual(['after one', 'after two']);
  expect([...all.complaints, ...some.complaints]).toEqual([]);

  const folder = join(state, 'logs/servers/notes');
  const files = readdirSync(folder).sort();
  expect(files).toEqual(['notes.log', 'notes.log.1', 'notes.log.2', 'notes.log.3', 'notes.log.4']);
  for (const file of files) expect(statSync(join(folder, file)).size).toBeLessThanOrEqual(4 * 1024 * 1024);
  const left = (await logs('--last', '2000', '--regexp', '^\\d+ x')).trim().split('\n');
  expect(numbersIn(left.map((line) => line.split('  ')[1] ?? ''))).toEqual(upTo(FLOOD.times).slice(-2_000));
});

test('a follower outlives the router and hears the next one; without a router the files are read all the same', async () => {
  await write({ line: 'first life' });
  const { texts, until } = follow('--grep', 'life');
  await until((told) => told.includes('first life'));
  await expect(session.text('do', { action: 'crash' })).rejects.toThrow(/exited with code 3/);
  expect(await logs('--last', '3')).toMatch(
    / last words\n.* and no newline\n.* \(moorage\) the process exited with code 3\n$/,
  );
  const port = Number(new URL(moorage.url).port);
  await moorage.stop();
  expect(await logs('--grep', 'life')).toMatch(/^\S+ notes {2}first life\n$/);
  moorage = await moorageUp(dir, { port });
  await write({ line: 'second life' });
  await until((told) => told.length === 2);
  expect(texts).toEqual(['first life', 'second life']);
});
