/**
 * Servers that hang, through the whole path: found by the protocol's own question, reported or ended, and no machine woken
 * for it. The waits are the product's (health.ts); what one test waits for is seen from the others, which run beside it.
 */
import { cpSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import {
  type Connected,
  connect,
  moorage as moorageCommand,
  moorageUp,
  project,
  type Running,
} from '../support/moorage.ts';

const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const plain = { runtime: 'process', command: process.execPath, args: [SCRIPT, '--hints'] };
const guest = {
  command: 'node',
  args: ['scripted-server.mjs'],
  files: './scripted',
  health: 'restart',
  limits: { memory: '256M', disk: '256M' },
  sleep: { pauseAfter: '1s', hibernateAfter: '2s' },
};
const guests = inject('guests');
const { dir, state } = project({
  mcpServers: {
    restarted: { ...plain, health: 'restart' },
    reported: plain,
    ...(guests ? { guest, beside: plain } : {}),
  },
});
mkdirSync(join(dir, 'scripted'));
cpSync(SCRIPT, join(dir, 'scripted/scripted-server.mjs'));

const folder = join(state, 'machines/guest');
const isAsleep = () => existsSync(join(folder, 'sleep/image.json')) && !existsSync(join(folder, 'qemu.pid'));

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 100));
}

let moorage: Running;
beforeAll(async () => {
  moorage = await moorageUp(dir);
});
afterAll(() => moorage.stop());

const act = (session: Connected, action: string, tool = 'do') => session.text(tool, { action });
const machines = () => moorageCommand(dir, 'machines');
const logOf = (server: string) => moorageCommand(dir, 'logs', server);
const reports = (server: string) =>
  moorage.output().split(`server ${server} in machine ${server}: no answer`).length - 1;
const wakes = () => moorage.output().match(/machine guest: woken/g)?.length ?? 0;

const UNKNOWN = {
  message: expect.stringMatching(/ended by SIGKILL while "tools\/call" was running\. Outcome unknown/),
  data: { code: 'outcome_unknown', cause: 'server_exited' },
};

describe.concurrent('a server that hangs', () => {
  test('is ended with "health": "restart"; its calls have an unknown outcome, its sessions go on in the next process', async () => {
    const sessions = await Promise.all([connect(moorage.url, 'restarted'), connect(moorage.url, 'restarted')]);
    const [one, other] = sessions;
    // What may be asked twice is known from the list.
    await one.client.listTools();
    const pid = Number(await act(one, 'pid'));
    expect(await act(other, 'pid')).toBe(String(pid));
    process.kill(pid, 'SIGSTOP');
    const lost = sessions.map((session) => expect(act(session, 'count')).rejects.toMatchObject(UNKNOWN));
    const repeated = act(one, 'pid', 'look');
    await Promise.all(lost);
    const next = await repeated;
    expect(Number(next)).not.toBe(pid);
    expect(await Promise.all(sessions.map((session) => act(session, 'pid')))).toEqual([next, next]);
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    expect(reports('restarted')).toBe(1);
    expect(await logOf('restarted')).toMatch(
      /\(moorage\) no answer for \d\d s while 3 calls wait; its process is ended$/m,
    );
    expect(await machines()).not.toContain('restarted in restarted');
    await Promise.all(sessions.map((session) => session.close()));
  });

  test('is reported and left alone without it; its call is answered when it goes on', async () => {
    const session = await connect(moorage.url, 'reported');
    const pid = Number(await act(session, 'pid'));
    process.kill(pid, 'SIGSTOP');
    const answer = act(session, 'count');
    await until(() => reports('reported') > 0);
    expect(await machines()).toMatch(/^reported in reported: no answer: no answer for \d+ s/m);
    expect(await logOf('reported')).toMatch(/\(moorage\) no answer for \d\d s while 1 call waits$/m);
    process.kill(pid, 'SIGCONT');
    expect(await answer).toBe('1');
    expect(await act(session, 'pid')).toBe(String(pid));
    expect(await machines()).not.toContain('reported in reported');
    await session.close();
  });

  test.skipIf(!guests)('is not asked while its machine sleeps, and ended in it when a call waits', async () => {
    const session = await connect(moorage.url, 'guest');
    const pid = await act(session, 'pid');
    await moorageCommand(dir, 'exec', 'guest', '--', 'kill', '-STOP', pid);
    await until(isAsleep);
    // As long as it takes to find another one that hangs.
    const beside = await connect(moorage.url, 'beside');
    process.kill(Number(await act(beside, 'pid')), 'SIGSTOP');
    const answer = act(beside, 'count');
    await until(() => reports('beside') > 0);
    expect([isAsleep(), wakes(), reports('guest')]).toEqual([true, 0, 0]);
    await expect(act(session, 'count')).rejects.toMatchObject(UNKNOWN);
    expect(reports('guest')).toBe(1);
    expect(await act(session, 'count')).toBe('1');
    // Nor does the question, which nobody answered, keep it awake.
    await until(isAsleep);
    expect(wakes()).toBe(1);
    await Promise.all([session.close(), beside.close(), answer.catch(() => undefined)]);
  });
});
