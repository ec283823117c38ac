/** Real clients of both eras at servers of both, over stdio and HTTP, all through `moorage up`: one question each, answered. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Direct, serveDirect } from '../conformance/direct.ts';
import { moorageUp, project, type Running } from '../support/moorage.ts';

const FIXTURE = new URL('../conformance/stdio.ts', import.meta.url).pathname;
const EVERYTHING = new URL('../../node_modules/@modelcontextprotocol/server-everything/dist/index.js', import.meta.url)
  .pathname;
const ssePort = 40_000 + (process.pid % 20_000);

const sse = spawn(process.execPath, [EVERYTHING, 'sse'], { env: { ...process.env, PORT: String(ssePort) } });
let http: Direct[];
let moorage: Running;
beforeAll(async () => {
  http = [await serveDirect(), await serveDirect({ legacyOnly: true })];
  const stdio = (...args: string[]) => ({ runtime: 'process', command: 'node', args: [FIXTURE, ...args] });
  const { dir } = project({
    mcpServers: {
      both: stdio(),
      modern: stdio('--modern'),
      legacy: stdio('--legacy'),
      'http-both': { url: http[0]?.url },
      'http-legacy': { url: http[1]?.url },
      'http-sse': { url: `http://127.0.0.1:${ssePort}/sse` },
    },
  });
  if (!sse.stderr.readableLength) await once(sse.stderr, 'data');
  moorage = await moorageUp(dir);
});
afterAll(async () => {
  await moorage.stop();
  sse.kill();
  await Promise.all(http.map((server) => server.close()));
});

const SERVERS = ['both', 'modern', 'legacy', 'http-both', 'http-legacy', 'http-sse'];
const CLIENTS = [
  ['legacy', '2025-11-25'],
  [{ pin: '2026-07-28' }, '2026-07-28'],
] as const;

test.each(SERVERS.flatMap((server) => CLIENTS.map(([mode, revision]) => [server, revision, mode] as const)))(
  '%s for a client of %s',
  async (server, revision, mode) => {
    const client = new Client(
      { name: 'test', version: '1' },
      { capabilities: { elicitation: {} }, versionNegotiation: { mode } },
    );
    client.setRequestHandler('elicitation/create', async () => ({ action: 'accept', content: { username: 'Ada' } }));
    await client.connect(new StreamableHTTPClientTransport(new URL(`${moorage.url}/${server}/mcp`)));
    expect(client.getNegotiatedProtocolVersion()).toBe(revision);
    const name = server === 'http-sse' ? 'echo' : 'test_elicitation';
    const { tools } = await client.listTools();
    expect(tools.map((tool) => tool.name)).toContain(name);
    const { content } = await client.callTool({ name, arguments: { message: 'Ada' } });
    expect(JSON.stringify(content)).toContain('Ada');
    await client.close();
  },
);
