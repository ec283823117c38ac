/** Sleep through the whole path: SDK client, workerd, agent, QEMU guest. States are read from the machine's folder. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { SecretStore } from '../../origin/secrets/store.ts';
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
    sleeper: {
      command: 'node',
      args: ['scripted-server.mjs'],
      files: './scripted',
      secrets: ['TOKEN'],
      limits: { memory: '256M', disk: '256M' },
      sleep: { pauseAfter: '1s', hibernateAfter: '2s' },
    },
  },
});
const TOKEN = 'ghp_0123456789abcdef';
const secrets = new SecretStore(state);
secrets.set({ name: 'TOKEN', server: 'sleeper' }, TOKEN);
const digestOf = (value: string) => createHash('sha256').update(value).digest('hex');
mkdirSync(join(dir, 'scripted'));
cpSync(join(ROOT, 'test/support/scripted-server.mjs'), join(dir, 'scripted/scripted-server.mjs'));

const folder = join(state, 'machines/sleeper');
const isAsleep = () => existsSync(join(folder, 'sleep/image.json')) && !existsSync(join(folder, 'qemu.pid'));

const MEMORY = /\/sleep\/(memory|delta)-/;

/** Files of the state folder that hold a text: those of these names, or all but the memory of machines. */
function filesWith(text: string, names?: RegExp): string[] {
  const found = spawnSync('grep', ['-rlF', text, state], { encoding: 'utf8' }).stdout.split('\n');
  return found.filter((path) => path !== '' && (names ? names.test(path) : !MEMORY.test(path)));
}

async function asleep(): Promise<void> {
  while (!isAsleep()) await new Promise((resolve) => setTimeout(resolve, 50));
}

/** However long the answer takes. */
async function expectRightTime(now: () => Promise<string>): Promise<void> {
  const asked = Date.now();
  const time = Number(await now());
  expect(time).toBeGreaterThan(asked - 1_000);
  expect(time).toBeLessThan(Date.now() + 1_000);
}

describe.skipIf(!inject('guests'))('a machine that sleeps', () => {
  let moorage: Running;
  let session: Connected;
  const act = (action: string, args: object = {}) => session.text('do', { action, ...args });
  const wakes = () => moorage.output().match(/woken in/g)?.length ?? 0;

  beforeAll(async () => {
    moorage = await moorageUp(dir);
    session = await connect(moorage.url, 'sleeper');
  });
  afterAll(async () => {
    await session.close();
    await moorage.stop();
  });

  test('hibernates although its client is connected; 50 calls at once wake it once, in the same session and process', async () => {
    expect(await act('count')).toBe('1');
    await asleep();
    const counts = await Promise.all(Array.from({ length: 50 }, () => act('count')));
    expect(counts.map(Number).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, n) => n + 2));
    await expect.poll(wakes).toBe(1);
  });

  test('is asked for a list while it is awake, and not woken for one: ten clients, those that called it among them', async () => {
    const names = async ({ client }: Connected) => (await client.listTools()).tools.map(({ name }) => name);
    expect(await names(session)).toEqual(['do']);
    await asleep();
    const before = wakes();
    const others = await Promise.all(Array.from({ length: 9 }, () => connect(moorage.url, 'sleeper')));
    expect(await Promise.all([session, ...others].map(names))).toEqual(Array.from({ length: 10 }, () => ['do']));
    await Promise.all(others.map((other) => other.close()));
    expect([wakes(), isAsleep()]).toEqual([before, true]);
  });

  test('is not frozen under a silent call, however short its times are', async () => {
    await act('echo', { value: 'up' });
    const before = wakes();
    expect(await act('later', { ms: 5_000, value: 'at last' })).toBe('at last');
    expect(wakes()).toBe(before);
  });

  test('goes on after the agent was stopped and started: same session, same memory, same secrets, no new initialize', async () => {
    const port = Number(new URL(moorage.url).port);
    await moorage.stop();
    expect(isAsleep()).toBe(true);
    moorage = await moorageUp(dir, { port });
    expect(isAsleep()).toBe(true);
    expect(await act('count')).toBe('52');
    await expectRightTime(() => act('now'));
    // The process has it, the next agent keeps it out of what the process says, and no file but its memory holds it.
    expect(await act('variable', { name: 'TOKEN', as: 'digest' })).toBe(digestOf(TOKEN));
    expect(await act('variable', { name: 'TOKEN', as: 'text' })).toBe('[secret TOKEN]');
    expect(filesWith(TOKEN)).toEqual([]);
  });

  test('is forked while it is used: the copy has its disk, name and secrets of its own, and no number, session or process of it', async () => {
    const other = 'ghp_fedcba9876543210';
    secrets.set({ name: 'TOKEN', server: 'staging' }, other);
    const counted = Number(await act('count'));
    for (let n = 0; n < 3; n += 1) await act('draw');
    await act('record', { value: 'before' });
    const slow = act('later', { ms: 2_000, value: 'not disturbed' });
    const made = JSON.parse(await moorageCommand(dir, 'fork', 'sleeper', '--as', 'staging', '--json')) as {
      cost: object;
    };
    process.stdout.write(`fork of a running machine: ${JSON.stringify(made.cost)}\n`);
    expect(await slow).toBe('not disturbed');
    const child = await connect(moorage.url, 'staging');
    const there = (action: string, args: object = {}) => child.text('do', { action, ...args });
    expect([await there('count'), Number(await act('count'))]).toEqual(['1', counted + 1]);
    const numbers: string[] = [];
    for (let n = 0; n < 4; n += 1)
      numbers.push(await act('draw'), await there('draw'), await act('random'), await there('random'));
    expect(new Set(numbers).size).toBe(16);
    for (const path of ['/etc/machine-id', '/proc/sys/kernel/hostname']) {
      const [ours, theirs] = [await act('read', { path }), await there('read', { path })];
      expect(theirs).not.toBe(ours);
    }
    expect(await there('read', { path: '/proc/sys/kernel/hostname' })).toBe('staging');
    await expectRightTime(() => there('now'));
    const variable = (as: string) => ['variable', { name: 'TOKEN', as }] as const;
    expect(await there(...variable('digest'))).toBe(digestOf(other));
    expect(await act(...variable('digest'))).toBe(digestOf(TOKEN));
    expect([await there(...variable('text')), await act(...variable('text'))]).toEqual([
      '[secret TOKEN]',
      '[secret TOKEN]',
    ]);
    // A session of the one is none of the other.
    const stolen = await fetch(`${moorage.url}/staging/mcp`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'mcp-session-id': session.transport.sessionId ?? '',
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }),
    });
    expect(stolen.status).toBe(404);
    // Both have what was written before, and each what it writes itself.
    await there('record', { value: 'staging' });
    await act('record', { value: 'sleeper' });
    const written = (text: string) => text.split('\n').map((line) => line.split(' ')[0]);
    const log = { path: 'executions.log' };
    expect(written(await there('read', log))).toEqual(['before', 'staging']);
    expect(written(await act('read', log))).toEqual(['before', 'sleeper']);
    await child.close();
  });

  test('goes on in a copy that keeps its processes, with what they have in memory and other numbers of the kernel', async () => {
    const counted = Number(await act('count'));
    expect(await moorageCommand(dir, 'fork', 'sleeper', '--as', 'twin', '--keep-processes')).toMatch(
      /processes: 1 go on in it\n/,
    );
    const twin = await connect(moorage.url, 'twin');
    expect(await twin.text('do', { action: 'count' })).toBe(String(counted + 1));
    // Nothing is set for it: it has what its original has.
    expect(await twin.text('do', { action: 'variable', name: 'TOKEN', as: 'digest' })).toBe(digestOf(TOKEN));
    expect([await act('count'), await act('count')].map(Number)).toEqual([counted + 1, counted + 2]);
    expect(await twin.text('do', { action: 'random' })).not.toBe(await act('random'));
    await twin.close();
    await moorageCommand(dir, 'fork', '--rm', 'twin');
    await expect(connect(moorage.url, 'twin')).rejects.toThrow(/twin/);
    expect(existsSync(join(state, 'machines/twin'))).toBe(false);
  });

  test('does not go on in a copy that is given other secrets: its processes are started anew there', async () => {
    const value = 'ghp_of-strange-alone';
    secrets.set({ name: 'TOKEN', server: 'strange' }, value);
    const counted = Number(await act('count'));
    expect(await moorageCommand(dir, 'fork', 'sleeper', '--as', 'strange', '--keep-processes')).toMatch(
      /processes: 0 go on in it; 1 start anew, because it is given other secrets/,
    );
    // What its memory was copied from held the other one: the copy is as secret as the machine.
    expect(filesWith(TOKEN, /\/machines\/strange\/sleep\/(memory|delta)-/)).not.toEqual([]);
    const strange = await connect(moorage.url, 'strange');
    expect(await strange.text('do', { action: 'count' })).toBe('1');
    expect(await strange.text('do', { action: 'variable', name: 'TOKEN', as: 'digest' })).toBe(digestOf(value));
    expect([Number(await act('count')), await act('variable', { name: 'TOKEN', as: 'digest' })]).toEqual([
      counted + 1,
      digestOf(TOKEN),
    ]);
    await strange.close();
    await moorageCommand(dir, 'fork', '--rm', 'strange');
  });

  test('and its copy are there after a restart, in their own sessions and processes', async () => {
    const child = await connect(moorage.url, 'staging');
    const count = async () => Number(await child.text('do', { action: 'count' }));
    const counted = [await count(), Number(await act('count'))];
    const port = Number(new URL(moorage.url).port);
    await moorage.stop();
    moorage = await moorageUp(dir, { port });
    const machines = JSON.parse(await moorageCommand(dir, 'machines', '--json')) as { key: string }[];
    expect(machines).toEqual(
      expect.arrayContaining([expect.objectContaining({ key: 'staging', machine: 'sleeper', forkOf: 'sleeper' })]),
    );
    expect(moorage.output()).toMatch(/^ +staging +\S+\/staging\/mcp +copy of "sleeper"/m);
    expect(await moorageCommand(dir, 'fork')).toMatch(/^staging +sleeper +\d{4}-/m);
    expect([await count(), Number(await act('count'))]).toEqual(counted.map((before) => before + 1));
    await child.close();
  });

  test('has a copy of a copy that outlives what it was made of, also through a restart', async () => {
    await moorageCommand(dir, 'fork', 'staging', '--as', 'canary');
    await moorageCommand(dir, 'fork', '--rm', 'staging');
    const canary = await connect(moorage.url, 'canary');
    const there = (action: string, args: object = {}) => canary.text('do', { action, ...args });
    const written = async () => (await there('read', { path: 'executions.log' })).match(/^\w+/gm);
    expect([await there('count'), await written()]).toEqual(['1', ['before', 'staging']]);
    expect(await there('read', { path: '/proc/sys/kernel/hostname' })).toBe('canary');
    expect(await there('variable', { name: 'TOKEN', as: 'digest' })).toBe(digestOf(TOKEN));
    const port = Number(new URL(moorage.url).port);
    await moorage.stop();
    moorage = await moorageUp(dir, { port });
    expect(await moorageCommand(dir, 'fork')).toMatch(/^canary +staging +\d{4}-/m);
    expect([await there('count'), await written()]).toEqual(['2', ['before', 'staging']]);
    await canary.close();
  });

  test('boots from its disk when its image is damaged, which is reported, and the session is opened again', async () => {
    await asleep();
    const delta = readdirSync(join(folder, 'sleep')).find((name) => name.startsWith('delta'));
    truncateSync(join(folder, 'sleep', delta ?? ''), 3);
    expect(await act('count')).toBe('1');
    await expect.poll(moorage.output).toMatch(/machine sleeper could not be woken: delta-\d+ has another size/);
    await expect.poll(() => readFileSync(join(state, 'logs/agent.log'), 'utf8')).toMatch(/could not be woken/);
  });
});
