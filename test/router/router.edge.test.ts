/** A router inside a program: started, doubled, refused, closed; and the example that the documentation shows. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { createRouter } from 'moorage';
import { describe, expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { connect } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const time = { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') };
const folder = () => mkdtempSync(join(tmpdir(), 'moorage-router-'));

describe('createRouter', () => {
  test('two routers serve side by side, each until it is closed', async () => {
    const routers = await Promise.all(
      [folder(), folder()].map((stateDir) => createRouter({ mcpServers: { time } }, { stateDir })),
    );
    const [first, second] = routers;
    if (!first || !second) throw new Error('unreachable');
    expect(first.url).not.toBe(second.url);
    expect(first.clientConfig()).toEqual({ mcpServers: { time: { type: 'http', url: `${first.url}/time/mcp` } } });
    await first.close();
    expect(await first.ended).toBe('closed');
    const client = await connect(second.url, 'time');
    expect(JSON.parse(await client.text('get_current_time', { timezone: 'UTC' }))).toMatchObject({ timezone: 'UTC' });
    await client.close();
    await second.close();
  });

  test('a client inside the same program needs no port: fetch is enough', async () => {
    const router = await createRouter({ mcpServers: { time } }, { stateDir: folder(), baseUrl: 'http://localhost/in' });
    const client = new Client({ name: 'inside', version: '1.0.0' });
    const transport = new StreamableHTTPClientTransport(new URL('http://localhost/in/time/mcp'), {
      fetch: (url, init) => router.fetch(new Request(url, init)),
    });
    await client.connect(transport);
    expect((await client.listTools()).tools.map(({ name }) => name)).toContain('get_current_time');
    await client.close();
    await router.close();
  });

  test('a state folder has one router, in this program too; closing gives it back', async () => {
    const stateDir = folder();
    const router = await createRouter({ mcpServers: { time } }, { stateDir });
    await expect(createRouter({ mcpServers: { time } }, { stateDir })).rejects.toMatchObject({
      code: 'state_in_use',
      message: expect.stringContaining('inside a program'),
    });
    await router.close();
    await (await createRouter({ mcpServers: { time } }, { stateDir })).close();
  });

  test('an edge that is killed is started again at the same address', async () => {
    const log: string[] = [];
    const stateDir = folder();
    const router = await createRouter({ mcpServers: { time } }, { stateDir, log: (line) => log.push(line) });
    const client = await connect(router.url, 'time');
    process.kill(Number(readFileSync(join(stateDir, 'edge/workerd.pid'), 'utf8')), 'SIGKILL');
    await expect.poll(async () => (await fetch(`${router.url}/healthz`)).ok).toBe(true);
    expect(await client.text('get_current_time', { timezone: 'UTC' })).toContain('UTC');
    expect(log.join('\n')).toContain('started again');
    await client.close();
    await router.close();
  });

  test('a configuration with faults names them and leaves nothing behind', async () => {
    const stateDir = join(folder(), 'state');
    await expect(createRouter({ mcpServers: { a: {} } }, { stateDir })).rejects.toMatchObject({
      name: 'ConfigError',
      problems: [expect.stringMatching(/^mcpServers\.a\.command/)],
    });
    expect(existsSync(stateDir)).toBe(false);
    await expect(createRouter({ mcpServers: { time } }, { stateDir, baseUrl: 'tools' })).rejects.toThrow(/baseUrl/);
    const module = { runtime: 'edge', tools: join(stateDir, 'missing.ts') };
    await expect(createRouter({ mcpServers: { module } }, { stateDir })).rejects.toMatchObject({ name: 'BundleError' });
    expect(existsSync(join(stateDir, 'up.json'))).toBe(false);
  });
});

describe('examples/embed.ts', () => {
  test('ten lines mount a router; the SDK calls it under the program’s own address', async () => {
    const port = await freePort('localhost');
    const child = spawn(process.execPath, [join(ROOT, 'examples/embed.ts')], {
      cwd: folder(),
      env: { ...process.env, PORT: String(port) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    const [line] = await once(createInterface({ input: child.stdout }), 'line');
    const base = `http://localhost:${port}/tools`;
    expect(JSON.parse(String(line))).toEqual({ mcpServers: { time: { type: 'http', url: `${base}/time/mcp` } } });
    const client = await connect(base, 'time');
    const answer = await client.text('convert_time', {
      source_timezone: 'UTC',
      time: '12:00',
      target_timezone: 'Asia/Tokyo',
    });
    expect(JSON.parse(answer).target.datetime).toMatch(/T21:00:00\+09:00$/);
    await client.transport.terminateSession();
    await client.close();
    child.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
  });
});
