/** `moorage stdio` as an MCP client runs it: a child process, spoken to by the SDKs, its router killed under it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, type ClientOptions } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport as StdioClientTransportV1 } from '@modelcontextprotocol/sdk/client/stdio.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { moorage as command, moorageUp, project, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const NOW = { name: 'get_current_time', arguments: { timezone: 'UTC' } };

function folder() {
  const made = project({
    mcpServers: {
      time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') },
      scripted: { runtime: 'process', command: process.execPath, args: ['scripted-server.mjs'] },
    },
  });
  cpSync(join(ROOT, 'test/support/scripted-server.mjs'), join(made.dir, 'scripted-server.mjs'));
  return made;
}

const args = (...rest: string[]) => [join(ROOT, 'cli/moorage.ts'), 'stdio', ...rest];
const here = (dir: string, server: string) =>
  args(server, '--config', join(dir, 'moorage.jsonc'), '--state', join(dir, 'state'));

/** An SDK v2 client of a `moorage stdio`, and what that says to its owner. */
async function connect(argv: string[], options: ClientOptions = {}, env: Record<string, string> = {}) {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: argv,
    stderr: 'pipe',
    cwd: '/',
    env: { ...(process.env as Record<string, string>), ...env },
  });
  let said = '';
  transport.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const client = new Client({ name: 'test', version: '1.0.0' }, options);
  await client.connect(transport, { timeout: 30_000 });
  return { client, said: () => said, pid: transport.pid };
}

/** Runs `moorage stdio` with this on stdin, to its end. */
async function run(argv: string[], input: readonly object[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, argv, { cwd: '/', stdio: 'pipe', env: { ...process.env, ...env } });
  child.stdin.end(input.map((message) => `${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`).join(''));
  const [out, err, [code]] = await Promise.all([child.stdout.toArray(), child.stderr.toArray(), once(child, 'exit')]);
  return { code, lines: out.join('').split('\n').filter(Boolean), err: err.join('') };
}

const initialize = {
  id: 0,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'raw', version: '1' } },
};

describe('with no router running', () => {
  test('SDK v2: starts one, serves, leaves nothing behind', async () => {
    const { dir, state } = folder();
    const { client, said } = await connect(here(dir, 'time'));
    expect((await client.listTools()).tools.map(({ name }) => name)).toContain('get_current_time');
    expect(JSON.stringify((await client.callTool(NOW)).content)).toContain('UTC');
    const workerd = Number(readFileSync(join(state, 'edge/workerd.pid'), 'utf8'));
    await expect.poll(said).toContain('started one');
    await client.close();
    expect(existsSync(join(state, 'up.json'))).toBe(false);
    expect(existsSync(`/proc/${workerd}`)).toBe(false);
  });

  test('SDK v1', async () => {
    const { dir } = folder();
    const client = new ClientV1({ name: 'test', version: '1.0.0' });
    await client.connect(
      new StdioClientTransportV1({ command: process.execPath, args: here(dir, 'time'), stderr: 'ignore', cwd: '/' }),
    );
    expect(JSON.stringify((await client.callTool(NOW)).content)).toContain('UTC');
    await client.close();
  });

  test.each([
    ['probes for 2026-07-28 first', 'auto'],
    ['knows nothing else', { pin: '2026-07-28' }],
  ] as const)('SDK v2 that %s', async (_name, mode) => {
    const { dir } = folder();
    const { client } = await connect(here(dir, 'time'), { versionNegotiation: { mode } });
    expect(JSON.stringify((await client.callTool(NOW)).content)).toContain('UTC');
    await client.close();
  });

  test('a pipe: what was asked before the end of stdin is answered, stdout has nothing but messages', async () => {
    const { dir } = folder();
    const call = { id: 1, method: 'tools/call', params: NOW };
    const { code, lines } = await run(here(dir, 'time'), [initialize, { method: 'notifications/initialized' }, call]);
    expect(lines.map((line) => JSON.parse(line).id)).toEqual([0, 1]);
    expect(code).toBe(0);
  });

  test('two clients share the router of the first; when the first leaves, the second takes over and goes on', async () => {
    const { dir } = folder();
    const first = await connect(here(dir, 'time'));
    const second = await connect(here(dir, 'scripted'));
    await expect.poll(second.said).toContain(`router of process ${first.pid}`);
    const value = async () =>
      (await second.client.callTool({ name: 'do', arguments: { action: 'echo', value: 'here' } })).content;
    expect(await value()).toEqual([{ type: 'text', text: 'here' }]);
    await first.client.close();
    expect(await value()).toEqual([{ type: 'text', text: 'here' }]);
    await expect.poll(second.said).toContain('started one');
    await second.client.close();
  });

  test('a start that fails is the answer, with its reason', async () => {
    const { dir } = project({ mcpServers: { gone: { runtime: 'edge', tools: './gone.ts' } } });
    const { lines, err } = await run(here(dir, 'gone'), [initialize]);
    expect(JSON.parse(lines[0] ?? '').error).toMatchObject({
      message: expect.stringContaining('gone.ts'),
      data: { code: 'edge_away' },
    });
    expect(err).toContain('gone.ts');
  });
});

describe('beside moorage up', () => {
  const { dir } = folder();
  /** What the server wrote to standard error. */
  const ofServer = () => readFileSync(join(dir, 'state/logs/servers/scripted/scripted.log'), 'utf8');
  let moorage: Running;
  beforeAll(async () => {
    moorage = await moorageUp(dir);
  });
  afterAll(async () => {
    await moorage.stop();
  });

  test('bridges to it: questions, list changes and cancellation cross', async () => {
    const { client, said } = await connect(here(dir, 'scripted'), { capabilities: { sampling: {} } });
    await expect.poll(said).toContain(`router of process ${moorage.child.pid}`);
    client.setRequestHandler('sampling/createMessage', () => ({
      role: 'assistant',
      model: 'm',
      content: { type: 'text', text: 'sampled' },
    }));
    const act = (action: string, rest: object = {}) => ({ name: 'do', arguments: { action, ...rest } });
    expect(JSON.stringify((await client.callTool(act('ask'))).content)).toContain('sampled');
    const changed = new Promise<void>((resolve) =>
      client.setNotificationHandler('notifications/tools/list_changed', () => resolve()),
    );
    await client.callTool(act('changed'));
    await changed;
    const controller = new AbortController();
    const never = client.callTool(act('never'), { signal: controller.signal });
    const refused = expect(never).rejects.toThrow(/enough/);
    await expect.poll(ofServer).toContain('never answers');
    controller.abort('enough');
    await refused;
    await expect.poll(ofServer).toContain('notifications/cancelled');
    expect(JSON.stringify((await client.callTool(act('echo', { value: 'still here' }))).content)).toContain('still');
    await client.close();
  });

  test('progress comes before its answer, in order', async () => {
    // Read from the pipe itself: the SDK's client forgets who wanted progress when the answer is in the same chunk.
    const params = { name: 'do', arguments: { action: 'progress', steps: 3 }, _meta: { progressToken: 'p' } };
    const { lines } = await run(here(dir, 'scripted'), [
      initialize,
      { method: 'notifications/initialized' },
      { id: 1, method: 'tools/call', params },
    ]);
    const seen = lines.map((line) => JSON.parse(line)).map(({ id, params }) => id ?? params.progress);
    expect(seen).toEqual([0, 1, 2, 3, 1]);
  });

  test('10 MB cross; what is too large for the router is refused, and the session lives on', async () => {
    const { client } = await connect(here(dir, 'scripted'));
    const echo = async (bytes: number) => {
      const value = 'x'.repeat(bytes);
      const { content } = await client.callTool({ name: 'do', arguments: { action: 'echo', value } });
      return (content as { text: string }[])[0]?.text.length;
    };
    // What comes back is bounded by the SDK's own buffer, of 10 MiB.
    expect(await echo(10_000_000)).toBe(10_000_000);
    await expect(echo(17_000_000)).rejects.toMatchObject({ data: { code: 'body_too_large' } });
    expect(await echo(5)).toBe(5);
    await client.close();
  });

  test('with --url: the same from anywhere, without a configuration', async () => {
    const { client, said } = await connect(args('time', '--url', moorage.url));
    expect(JSON.stringify((await client.callTool(NOW)).content)).toContain('UTC');
    expect(said()).toBe('');
    await client.close();
    const { lines } = await run(args('nosuch', '--url', moorage.url), [initialize]);
    expect(JSON.parse(lines[0] ?? '').error.data.code).toBe('unknown_server');
  });

  test('killed in the middle: what runs has an unknown outcome, what follows is told, and all goes on when it is back', async () => {
    const beside = await connect(here(dir, 'scripted'));
    const remote = await connect(args('scripted', '--url', moorage.url));
    const call = (client: Client, action: string) =>
      client.callTool({ name: 'do', arguments: { action, value: 'v' } }, { timeout: 40_000 });
    await Promise.all([call(beside.client, 'echo'), call(remote.client, 'echo')]);
    const asked = () => ofServer().split('never answers').length - 1;
    const before = asked();
    const running = [call(beside.client, 'never'), call(remote.client, 'never')];
    const outcomes = Promise.allSettled(running);
    await expect.poll(asked).toBe(before + 2);
    const port = Number(new URL(moorage.url).port);
    const workerd = Number(readFileSync(join(dir, 'state/edge/workerd.pid'), 'utf8'));
    await moorage.kill();
    process.kill(workerd, 'SIGKILL');
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ reason: { data: { code: 'outcome_unknown' } } });
    }
    // A connection that was kept may break under the first of these: of that one nobody knows what became.
    const told = async (client: Client) => String(await call(client, 'echo').catch((error: unknown) => error));
    await expect.poll(() => told(beside.client)).toMatch(/"moorage up".*has ended/);
    await expect.poll(() => told(remote.client)).toMatch(/cannot be reached.*ECONNREFUSED/);
    moorage = await moorageUp(dir, { port });
    expect((await call(beside.client, 'echo')).content).toEqual([{ type: 'text', text: 'v' }]);
    expect((await call(remote.client, 'echo')).content).toEqual([{ type: 'text', text: 'v' }]);
    await Promise.all([beside.client.close(), remote.client.close()]);
  });
});

describe('a router that asks who calls', () => {
  const { dir } = project({
    auth: { tokens: true },
    mcpServers: { time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') } },
  });
  let moorage: Running;
  beforeAll(async () => {
    moorage = await moorageUp(dir);
  });
  afterAll(async () => {
    await moorage.stop();
  });
  const ways = (): Readonly<Record<string, string[]>> => ({
    'beside it': here(dir, 'time'),
    'by --url': args('time', '--url', moorage.url),
  });
  const created = async (name: string): Promise<string> =>
    (JSON.parse(await command(dir, 'token', 'create', '--name', name, '--json')) as { token: string }).token;
  /** What each of these is told who shows nothing, or what is not good. */
  const advice = {
    message: expect.stringMatching(/"MOORAGE_TOKEN" in the environment of this command.*"moorage token create/),
    data: { code: 'authentication_required' },
  };

  test.each(['beside it', 'by --url'])('%s: serves whoever has a token, until it is revoked', async (way) => {
    const MOORAGE_TOKEN = await created(way.replace(' ', '-'));
    const { client, said } = await connect(ways()[way] ?? [], {}, { MOORAGE_TOKEN });
    expect(JSON.stringify((await client.callTool(NOW)).content)).toContain('UTC');
    await command(dir, 'token', 'revoke', way.replace(' ', '-'));
    await expect(client.callTool(NOW)).rejects.toMatchObject(advice);
    expect(said()).not.toContain(MOORAGE_TOKEN);
    await client.close();
  });

  test.each(['beside it', 'by --url'])('%s: tells whoever has none what to do', async (way) => {
    const { lines } = await run(ways()[way] ?? [], [initialize], { MOORAGE_TOKEN: '' });
    expect(JSON.parse(lines[0] ?? '').error).toMatchObject(advice);
  });

  test('that runs nowhere: the one that is started for the client asks too', async () => {
    const alone = project({
      auth: { tokens: true },
      mcpServers: { time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') } },
    });
    const { lines } = await run(here(alone.dir, 'time'), [initialize], { MOORAGE_TOKEN: '' });
    expect(JSON.parse(lines[0] ?? '').error).toMatchObject(advice);
  });
});

describe('what cannot be served', () => {
  test.each([
    [['nosuch', '--config', '{config}'], /no server "nosuch".*\n {2}time\n {2}scripted/s],
    [['time', '--config', '/nonexistent.jsonc'], /no \/nonexistent\.jsonc/],
    [['time', '--url', 'nowhere'], /--url takes/],
    [['a/b', '--url', 'http://localhost'], /no name of a server/],
    [[], /Which server\?/],
    [['time', '--port', '1'], /See "moorage help"/],
  ])('%j: exit code 2 and a reason on stderr', async (rest, reason) => {
    const { dir } = folder();
    const { code, lines, err } = await run(
      args(...rest.map((arg) => arg.replace('{config}', join(dir, 'moorage.jsonc')))),
      [],
    );
    expect(err).toMatch(reason);
    expect([code, lines]).toEqual([2, []]);
  });
});
