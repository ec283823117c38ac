/** Sleep through the whole path: SDK client, workerd, agent, QEMU guest. States are read from the machine's folder. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { type Connected, connect, moorageUp, project, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const { dir, state } = project({
  mcpServers: {
    sleeper: {
      command: 'node',
      args: ['scripted-server.mjs'],
      files: './scripted',
      limits: { memory: '256M' },
      sleep: { pauseAfter: '1s', hibernateAfter: '2s' },
    },
  },
});
mkdirSync(join(dir, 'scripted'));
cpSync(join(ROOT, 'test/support/scripted-server.mjs'), join(dir, 'scripted/scripted-server.mjs'));

const folder = join(state, 'machines/sleeper');
const isAsleep = () => existsSync(join(folder, 'sleep/image.json')) && !existsSync(join(folder, 'qemu.pid'));

async function asleep(): Promise<void> {
  while (!isAsleep()) await new Promise((resolve) => setTimeout(resolve, 50));
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
    expect(wakes()).toBe(1);
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

  test('goes on after the agent was stopped and started: same session, same memory, no new initialize', async () => {
    const port = Number(new URL(moorage.url).port);
    await moorage.stop();
    expect(isAsleep()).toBe(true);
    moorage = await moorageUp(dir, { port });
    expect(isAsleep()).toBe(true);
    expect(await act('count')).toBe('52');
    expect(Math.abs(Number(await act('now')) - Date.now())).toBeLessThan(1_000);
  });

  test('boots from its disk when its image is damaged, which is reported, and the session is opened again', async () => {
    await asleep();
    const delta = readdirSync(join(folder, 'sleep')).find((name) => name.startsWith('delta'));
    truncateSync(join(folder, 'sleep', delta ?? ''), 3);
    expect(await act('count')).toBe('1');
    expect(moorage.output()).toMatch(/machine sleeper could not be woken: delta-\d+ has another size/);
    expect(readFileSync(join(state, 'logs/agent.log'), 'utf8')).toMatch(/could not be woken/);
  });
});
