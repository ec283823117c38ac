/** The whole path with real parts: SDK client, workerd, agent, QEMU guest, published MCP servers; broken on purpose. */
import { cpSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { connect, moorage as moorageCommand, moorageUp, project, qemuPid, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const npx = (spec: string, extra: object = {}) => ({ command: 'npx', args: ['-y', spec], ...extra });
const { dir, state } = project({
  mcpServers: {
    memory: npx('@modelcontextprotocol/server-memory@2026.8.31', { machine: 'shared' }),
    everything: npx('@modelcontextprotocol/server-everything@2026.8.31', { machine: 'shared' }),
    scripted: {
      command: 'node',
      args: ['scripted-server.mjs'],
      files: './scripted',
      machine: 'shared',
      image: { apt: ['jq'] },
    },
    broken: {
      command: 'node',
      args: ['scripted-server.mjs', '--exit-at-once'],
      files: './scripted',
      machine: 'shared',
    },
    time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') },
  },
});
mkdirSync(join(dir, 'scripted'));
cpSync(join(ROOT, 'test/support/scripted-server.mjs'), join(dir, 'scripted/scripted-server.mjs'));

const entity = (name: string) => ({ entities: [{ name, entityType: 'test', observations: ['seen'] }] });
const act = (action: string, args: object = {}) => ({ action, ...args });

describe.skipIf(!inject('guests'))('the whole path', () => {
  let moorage: Running;
  beforeAll(async () => {
    moorage = await moorageUp(dir);
  });
  afterAll(async () => {
    await moorage.stop();
  });

  test('a burst meets a machine that is not booted: 50 calls of 50 new clients, each answered once with its own result', async () => {
    expect(existsSync(join(state, 'machines', 'shared', 'qemu.pid'))).toBe(false);
    const answers = await Promise.all(
      Array.from({ length: 50 }, async (_, n) => {
        const session = await connect(moorage.url, 'everything');
        const text = await session.text('echo', { message: `burst ${n}` });
        await session.close();
        return text;
      }),
    );
    expect(answers).toEqual(Array.from({ length: 50 }, (_, n) => `Echo: burst ${n}`));
  });

  test('servers of one machine, and the edge’s own, answer under their own paths', async () => {
    const memory = await connect(moorage.url, 'memory');
    expect((await memory.client.listTools()).tools.map((tool) => tool.name)).toContain('read_graph');
    const time = await connect(moorage.url, 'time');
    expect(JSON.parse(await time.text('get_current_time', { timezone: 'UTC' }))).toMatchObject({ timezone: 'UTC' });
    await Promise.all([memory.close(), time.close()]);
  });

  test('a Debian package that a recipe asks for is in the machine, with the libraries that it needs', async () => {
    expect(await moorageCommand(dir, 'exec', 'scripted', '--', 'jq', '-nc', '[1, 2] | add')).toBe('3\n');
    const used = JSON.parse(await moorageCommand(dir, 'images', '--json')) as { kind: string; what: string }[];
    expect(used).toContainEqual(expect.objectContaining({ kind: 'system', what: 'jq' }));
  });

  test('QEMU killed with -9: the same session goes on, 50 calls at once on it are answered, and what was answered before is on disk', async () => {
    const memory = await connect(moorage.url, 'memory');
    const echo = await connect(moorage.url, 'everything');
    await memory.text('create_entities', entity('before the crash'));
    process.kill(qemuPid(state, 'shared'), 'SIGKILL');
    const burst = Array.from({ length: 50 }, (_, n) => echo.text('echo', { message: `after ${n}` }));
    expect(await memory.text('read_graph')).toContain('before the crash');
    expect(await Promise.all(burst)).toEqual(Array.from({ length: 50 }, (_, n) => `Echo: after ${n}`));
    await Promise.all([memory.close(), echo.close()]);
  });

  test('a call in flight when the machine is lost has an unknown outcome, never a false success', async () => {
    const session = await connect(moorage.url, 'scripted');
    await session.text('do', act('echo', { value: 'warm' }));
    const hanging = session.text('do', act('never'));
    const other = connect(moorage.url, 'scripted').then((second) => second.text('do', act('count')));
    await other;
    process.kill(qemuPid(state, 'shared'), 'SIGKILL');
    await expect(hanging).rejects.toMatchObject({
      message: expect.stringMatching(/outcome unknown/i),
      data: { code: 'outcome_unknown' },
    });
    expect(await session.text('do', act('echo', { value: 'back' }))).toBe('back');
    await session.close();
  });

  test('a server whose process exits: the caller learns what happened, the owner reads its last words, the next call works', async () => {
    const session = await connect(moorage.url, 'scripted');
    await expect(session.text('do', act('crash', { code: 4 }))).rejects.toThrow(/exited with code 4/);
    await expect.poll(moorage.output).toContain('last words');
    const kept = () => readFileSync(join(state, 'logs/servers/scripted/shared.log'), 'utf8');
    await expect.poll(kept).toContain('last words');
    expect(await session.text('do', act('echo', { value: 'again' }))).toBe('again');
    await session.close();
    await expect(connect(moorage.url, 'broken')).rejects.toThrow(/"broken" ended while it was starting.*exit code 7/);
    await expect.poll(moorage.output).toContain('cannot start');
  });

  test('questions of a server reach the client that called, progress its caller, list changes the GET stream', async () => {
    const session = await connect(moorage.url, 'scripted', { sampling: {} });
    session.client.setRequestHandler('sampling/createMessage', () => ({
      role: 'assistant',
      model: 'm',
      content: { type: 'text', text: 'sampled' },
    }));
    expect(await session.text('do', act('ask'))).toContain('sampled');
    const steps: number[] = [];
    await session.client.callTool(
      { name: 'do', arguments: act('progress', { steps: 3 }) },
      { onprogress: ({ progress }) => steps.push(progress) },
    );
    expect(steps).toEqual([1, 2, 3]);
    const changed = new Promise<void>((resolve) =>
      session.client.setNotificationHandler('notifications/tools/list_changed', () => resolve()),
    );
    await session.text('do', act('changed'));
    await changed;
    await session.close();
  });

  test('everything killed with -9, started again: the entity is there, and so is the old session', async () => {
    const memory = await connect(moorage.url, 'memory');
    await memory.text('create_entities', entity('survivor'));
    const port = Number(new URL(moorage.url).port);
    const qemu = qemuPid(state, 'shared');
    await moorage.kill();
    try {
      process.kill(qemu, 'SIGKILL');
    } catch (error) {
      // It may have died with its agent already (setpriv --pdeathsig).
      expect((error as NodeJS.ErrnoException).code).toBe('ESRCH');
    }
    moorage = await moorageUp(dir, { port });
    const fresh = await connect(moorage.url, 'memory');
    expect(await fresh.text('read_graph')).toContain('survivor');
    expect(await memory.text('read_graph')).toContain('survivor');
    await Promise.all([memory.close(), fresh.close()]);
  });

  test('a second start beside the first is refused with a reason', async () => {
    await expect(moorageUp(dir)).rejects.toThrow(/moorage is running already/);
  });
});
