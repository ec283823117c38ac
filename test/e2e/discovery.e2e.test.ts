/** Discovery with real parts and published clients and servers: the machine sleeps through all of it. */
import { cpSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport, type Tool } from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { connect, moorageUp, project, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const npx = (spec: string) => ({ command: 'npx', args: ['-y', spec], machine: 'shared' });
const { dir, state } = project({
  mcpServers: {
    everything: npx('@modelcontextprotocol/server-everything@2026.8.31'),
    memory: npx('@modelcontextprotocol/server-memory@2026.8.31'),
    scripted: { command: 'node', args: ['scripted-server.mjs'], files: './scripted', machine: 'shared' },
  },
  aggregate: { servers: ['everything', 'memory'] },
});
mkdirSync(join(dir, 'scripted'));
cpSync(join(ROOT, 'test/support/scripted-server.mjs'), join(dir, 'scripted/scripted-server.mjs'));
const isAwake = () => existsSync(join(state, 'machines', 'shared', 'qemu.pid'));
const SERVERS = ['everything', 'memory'];
/** What clients declare decides what servers list: 13 tools, or 14. */
const DECLARED = [{}, { sampling: {}, elicitation: {}, roots: { listChanged: true } }];

describe.skipIf(!inject('guests'))('a machine that is asleep', () => {
  let moorage: Running;
  beforeAll(async () => {
    moorage = await moorageUp(dir);
  });
  afterAll(() => moorage.stop());

  /** The URL of a server, or of all as one. */
  const endpoint = (server: string) => new URL(server === '' ? `${moorage.url}/mcp` : `${moorage.url}/${server}/mcp`);
  /** A whole visit of a client that looks around and leaves. */
  const visitV2 = async (server: string, capabilities: object) => {
    const { client, transport, close } = await connect(moorage.url, server, capabilities);
    const offers = client.getServerCapabilities() ?? {};
    const seen = {
      server: client.getServerVersion(),
      tools: (await client.listTools()).tools,
      prompts: offers.prompts && (await client.listPrompts()).prompts,
      resources: offers.resources && (await client.listResources()).resources,
      templates: offers.resources && (await client.listResourceTemplates()).resourceTemplates,
    };
    await client.ping();
    if (offers.logging) await client.setLoggingLevel('error');
    await transport.terminateSession();
    await close();
    return seen;
  };
  const visitV1 = async (server: string, capabilities: object) => {
    const client = new ClientV1({ name: 'v1', version: '1' }, { capabilities });
    const transport = new TransportV1(endpoint(server));
    await client.connect(transport as Parameters<typeof client.connect>[0]);
    const { tools } = await client.listTools();
    await client.ping();
    await transport.terminateSession();
    await client.close();
    return tools.length;
  };
  /** As mcp-remote does: one session to see whether it works, and at once another one. */
  const visitTwice = async (server: string, capabilities: object) => {
    const first = await connect(moorage.url, server, capabilities);
    const second = await connect(moorage.url, server, capabilities);
    await first.close();
    await second.client.listTools();
    await second.transport.terminateSession();
    await second.close();
  };
  /** In the era without sessions, at a server or at `/mcp`. */
  const visitModern = async (server: string, capabilities: object) => {
    const client = new Client(
      { name: 'modern', version: '1' },
      { capabilities, versionNegotiation: { mode: { pin: '2026-07-28' } } },
    );
    await client.connect(new StreamableHTTPClientTransport(endpoint(server)));
    const offers = client.getServerCapabilities() ?? {};
    const seen = {
      server: client.getServerVersion(),
      tools: (await client.listTools()).tools.map(({ name }) => name),
      prompts: offers.prompts && (await client.listPrompts()).prompts,
      resources: offers.resources && (await client.listResources()).resources,
      templates: offers.resources && (await client.listResourceTemplates()).resourceTemplates,
    };
    await client.close();
    return seen;
  };
  const listening = async (server: string) => {
    const heard: string[][] = [];
    const onChanged = (_: Error | null, tools: Tool[] | null) => heard.push((tools ?? []).map(({ name }) => name));
    const client = new Client(
      { name: 'listening', version: '1' },
      {
        versionNegotiation: { mode: { pin: '2026-07-28' } },
        // It listens right after it has connected, and lists when it hears of a change.
        listChanged: { tools: { onChanged } },
      },
    );
    await client.connect(new StreamableHTTPClientTransport(endpoint(server)));
    return { client, heard, open: client.autoOpenedSubscription };
  };
  const stateless = [
    ['everything', {}],
    ['memory', {}],
    ['', {}],
  ] as const;
  const everybody = () => SERVERS.flatMap((server) => DECLARED.map((declared) => [server, declared] as const));

  test('is not woken by 20 clients that initialize, list, ping and leave, after everything was started anew', async () => {
    // One after the other: each starts a process in the machine.
    const before: Awaited<ReturnType<typeof visitV2>>[] = [];
    for (const [server, declared] of everybody()) before.push(await visitV2(server, declared));
    expect(isAwake()).toBe(true);
    expect(before.map(({ tools }) => tools.length)).toEqual([13, expect.any(Number), 9, 9]);
    expect(before[1]?.tools.length).toBeGreaterThan(13);
    const modern: Awaited<ReturnType<typeof visitModern>>[] = [];
    for (const [server, declared] of stateless) modern.push(await visitModern(server, declared));
    expect(modern.at(-1)?.tools).toHaveLength(22);
    await moorage.stop();
    moorage = await moorageUp(dir);
    expect(isAwake()).toBe(false);
    const modernAfter = await Promise.all(stateless.map(([server, declared]) => visitModern(server, declared)));
    expect(modernAfter).toEqual(modern);
    expect(isAwake(), 'by requests of 2026-07-28').toBe(false);
    expect(await visitV1('', {})).toBe(22);
    expect(isAwake(), 'by a session at /mcp').toBe(false);
    const after = await Promise.all(everybody().map(([server, declared]) => visitV2(server, declared)));
    expect(after).toEqual(before);
    expect(isAwake(), 'by SDK v2').toBe(false);
    const tools = await Promise.all(
      Array.from({ length: 10 }, (_, n) => visitV1(SERVERS[n % 2] ?? '', DECLARED[n % 4 < 2 ? 0 : 1] ?? {})),
    );
    expect(tools.slice(0, 2)).toEqual([13, 9]);
    expect(isAwake(), 'by SDK v1').toBe(false);
    await Promise.all(Array.from({ length: 6 }, (_, n) => visitTwice(SERVERS[n % 2] ?? '', {})));
    expect(isAwake()).toBe(false);
  });

  test('wakes for the first call of a session that was opened while it slept, and its lists stay what they were', async () => {
    const { text, client, close } = await connect(moorage.url, 'everything');
    const names = (await client.listTools()).tools.map(({ name }) => name);
    expect(isAwake()).toBe(false);
    expect(await text('echo', { message: 'good morning' })).toBe('Echo: good morning');
    expect(isAwake()).toBe(true);
    expect((await client.listTools()).tools.map(({ name }) => name)).toEqual(names);
    await close();
  });

  test('that was woken says that its tools changed, as this server does at its start, and the next client wakes nothing', async () => {
    await moorage.stop();
    moorage = await moorageUp(dir);
    expect((await Promise.all(DECLARED.map((declared) => visitV2('everything', declared)))).length).toBe(2);
    expect(isAwake()).toBe(false);
  });

  test('is not woken by clients that listen; the first call wakes it, and a list that grows in its process is heard', async () => {
    const before = await listening('scripted');
    await before.client.listTools();
    await before.client.close();
    await connect(moorage.url, 'scripted').then(async ({ client, close }) => client.listTools().finally(close));
    await moorage.stop();
    moorage = await moorageUp(dir);
    const listeners = [await listening('scripted'), await listening('scripted')];
    expect(listeners.map(({ open }) => open?.honoredFilter)).toEqual([
      { toolsListChanged: true },
      { toolsListChanged: true },
    ]);
    const updated: string[] = [];
    listeners[0]?.client.setNotificationHandler('notifications/resources/updated', ({ params }) => {
      updated.push(params.uri);
    });
    const uris = { resourceSubscriptions: ['test://x'] };
    expect(await listeners[0]?.client.listen(uris)).toMatchObject({ honoredFilter: uris });
    const session = await connect(moorage.url, 'scripted');
    expect((await session.client.listTools()).tools).toHaveLength(1);
    expect(isAwake(), 'by clients that listen').toBe(false);
    const caller = await listening('scripted');
    const act = async (args: object) => {
      await caller.client.callTool({ name: 'do', arguments: { ...args } }, { timeout: 300_000 });
    };
    await act({ action: 'updated', uri: 'test://x' });
    expect(isAwake()).toBe(true);
    await expect.poll(() => updated).toEqual(['test://x']);
    await act({ action: 'grow', name: 'later' });
    for (const { heard } of [...listeners, caller]) {
      await expect.poll(() => heard.at(-1), { timeout: 60_000 }).toEqual(['do', 'later']);
    }
    await Promise.all([...listeners, caller].map(({ client }) => client.close()));
    await session.close();
  });
});
