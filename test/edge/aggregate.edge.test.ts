/** `/mcp` on a real workerd: two edge servers that ask, the time server, and an origin that fails or is scripted. */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { UNAVAILABLE } from '../../edge/aggregate/lists.ts';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { event, json, plain, result } from './scripted-origin.ts';

const file = (path: string) => new URL(path, import.meta.url).pathname;
let edge: UnderTest;
let link: Awaited<ReturnType<UnderTest['dial']>>;

beforeAll(async () => {
  edge = await edgeUnderTest(
    {
      asking: file('./asking-server.ts'),
      'asking.v1': file('./asking-server-v1.ts'),
      time: file('../../servers/time.ts'),
      hidden: file('../../servers/time.ts'),
      stepping: file('./stepping-server.ts'),
    },
    { aggregate: { servers: ['*', '!hidden'], tools: ['*', '!time__convert_*'] } },
  );
  link = await edge.dial();
  await link.hello(['far']);
});
afterAll(() => edge.stop());

async function connect(capabilities: object = { elicitation: {}, sampling: {} }): Promise<Client> {
  const client = new Client({ name: 'test', version: '1' }, { capabilities });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${edge.url}/mcp`)));
  return client;
}
const textOf = (called: object) => (called as { content: { text: string }[] }).content[0]?.text;

describe('all servers as one', () => {
  test('lists those of every server that is shown, under names that lead back', async () => {
    edge.origin.handler = ({ message, replay, ...rest }, response) => {
      const method = 'method' in message ? message.method : '';
      if (method === 'tools/list')
        json(response, result(message, { tools: [{ name: 'x', inputSchema: { type: 'object' } }] }));
      else plain({ message, replay, ...rest }, response);
    };
    const client = await connect();
    const { tools } = await client.listTools();
    const names = tools.map((tool) => tool.name);
    expect(names).toContain('asking__ask_name');
    expect(names).toContain('time__get_current_time');
    expect(names).toContain('far__x');
    expect(names.some((name) => /^asking_v1__.*_[0-9a-f]{8}$/.test(name))).toBe(true);
    expect(names).not.toContain('time__convert_time');
    expect(names.filter((name) => name.startsWith('hidden'))).toEqual([]);
    expect(new Set(names).size).toBe(names.length);
    expect((await client.listTools()).tools.map((tool) => tool.name)).toEqual(names);
    await client.close();
  });

  test('calls reach their server, also under a hashed name; what is filtered or unknown is refused', async () => {
    const client = await connect();
    const called = await client.callTool({ name: 'time__get_current_time', arguments: { timezone: 'UTC' } });
    expect(JSON.parse(textOf(called) ?? '')).toMatchObject({ timezone: 'UTC' });
    const hashed = (await client.listTools()).tools.find((tool) => tool.name.startsWith('asking_v1__subscriptions'));
    expect(textOf(await client.callTool({ name: hashed?.name ?? '', arguments: {} }))).toBe('');
    for (const name of ['time__convert_time', 'hidden__get_current_time', 'nosuch__tool', 'echo', 'a_00000000']) {
      await expect(client.callTool({ name, arguments: {} })).rejects.toMatchObject({ code: -32602 });
    }
    await client.close();
  });

  test('a server’s question finds the client and its answer the server', async () => {
    const client = await connect();
    client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { name: 'Ada' } }));
    expect(textOf(await client.callTool({ name: 'asking__ask_name', arguments: {} }))).toBe('accept {"name":"Ada"}');
    await client.close();
  });

  test('one server that fails is named, the others are listed', async () => {
    edge.origin.handler = ({ message }, response) => {
      json(response, {
        jsonrpc: '2.0',
        id: 'id' in message ? message.id : null,
        error: { code: -32603, message: 'broken' },
      });
    };
    const client = await connect();
    const listed = await client.listTools();
    expect(listed.tools.map((tool) => tool.name)).toContain('time__get_current_time');
    expect(listed._meta?.[UNAVAILABLE]).toEqual([{ server: 'far', reason: 'broken' }]);
    edge.origin.handler = plain;
    await client.close();
  });

  test('a log level that is none is refused', async () => {
    const client = await connect();
    await client.setLoggingLevel('error');
    await expect(client.setLoggingLevel('loud' as never)).rejects.toMatchObject({ code: -32602 });
    await client.close();
  });

  test('resources keep their server: read, subscribe, and updates that come unasked', async () => {
    edge.origin.handler = ({ message, ...rest }, response) => {
      const method = 'method' in message ? message.method : '';
      const params = ('params' in message ? message.params : {}) as { uri?: string };
      if (method === 'resources/list') json(response, result(message, { resources: [{ uri: 'note:1', name: 'one' }] }));
      else if (method === 'resources/read')
        json(response, result(message, { contents: [{ uri: params.uri, text: 'hi' }] }));
      else if (method === 'resources/subscribe') json(response, result(message));
      else plain({ message, ...rest }, response);
    };
    const client = await connect();
    const { resources } = await client.listResources();
    expect(resources).toMatchObject([{ uri: 'far+note:1', name: 'one' }]);
    expect((await client.readResource({ uri: 'far+note:1' })).contents).toMatchObject([
      { uri: 'far+note:1', text: 'hi' },
    ]);
    const updated = new Promise<string>((resolve) => {
      client.setNotificationHandler('notifications/resources/updated', ({ params }) => resolve(params.uri));
    });
    await client.subscribeResource({ uri: 'far+note:1' });
    const subscribed = edge.origin.arrived.findLast(
      ({ message }) => 'method' in message && message.method === 'resources/subscribe',
    );
    link.send({
      type: 'event',
      seq: 1,
      sessions: [subscribed?.grant.session ?? ''],
      message: {
        jsonrpc: '2.0',
        method: 'notifications/resources/updated',
        params: { uri: 'note:1' },
      },
    });
    expect(await updated).toBe('far+note:1');
    await client.close();
  });

  test('a member session that was lost is opened again; ending the session ends the members', async () => {
    edge.origin.handler = plain;
    const client = await connect();
    const transport = client.transport as StreamableHTTPClientTransport;
    await client.callTool({ name: 'far__x', arguments: {} }).catch(() => undefined);
    const before = edge.origin.arrived.filter(
      ({ message }) => 'method' in message && message.method === 'initialize',
    ).length;
    expect(before).toBeGreaterThan(0);
    await transport.terminateSession();
    await expect.poll(() => edge.origin.ended.length).toBeGreaterThan(0);
    await expect(client.listTools()).rejects.toThrow();
  });

  test('progress streams through, with the caller’s token', async () => {
    edge.origin.handler = ({ message, ...rest }, response) => {
      if (!('method' in message) || message.method !== 'tools/call') return plain({ message, ...rest }, response);
      const { _meta } = message.params as { _meta: { progressToken: string } };
      const token = _meta.progressToken;
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const progress of [1, 2]) {
        response.write(
          event({ jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: token, progress } }),
        );
      }
      response.end(event(result(message, { content: [{ type: 'resource_link', uri: 'note:2', name: 'two' }] })));
    };
    const client = await connect();
    const seen: number[] = [];
    const called = await client.callTool(
      { name: 'far__x', arguments: {} },
      { onprogress: ({ progress }) => seen.push(progress) },
    );
    expect(seen).toEqual([1, 2]);
    expect(called).toMatchObject({ content: [{ type: 'resource_link', uri: 'far+note:2' }] });
    edge.origin.handler = plain;
    await client.close();
  });

  describe('for clients of 2026-07-28', () => {
    async function modern(): Promise<Client> {
      const client = new Client(
        { name: 'test', version: '1' },
        { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode: 'auto' } },
      );
      await client.connect(new StreamableHTTPClientTransport(new URL(`${edge.url}/mcp`)));
      return client;
    }

    test('discovers, lists and calls, with errors of the era', async () => {
      const client = await modern();
      expect(client.getNegotiatedProtocolVersion()).toBe('2026-07-28');
      const { tools } = await client.listTools();
      expect(tools.map((tool) => tool.name)).toContain('asking__ask_name');
      const called = await client.callTool({ name: 'time__get_current_time', arguments: { timezone: 'UTC' } });
      expect(JSON.parse(textOf(called) ?? '')).toMatchObject({ timezone: 'UTC' });
      await expect(client.callTool({ name: 'nosuch__tool', arguments: {} })).rejects.toMatchObject({ code: -32602 });
      await client.close();
    });

    test('a listen stream is acknowledged first and hears what the servers say', async () => {
      const meta = {
        'io.modelcontextprotocol/protocolVersion': '2026-07-28',
        'io.modelcontextprotocol/clientCapabilities': {},
        'io.modelcontextprotocol/clientInfo': { name: 't', version: '1' },
      };
      const send = (id: number, method: string, params: object, name?: string) =>
        fetch(`${edge.url}/mcp`, {
          method: 'POST',
          headers: {
            accept: 'application/json, text/event-stream',
            'content-type': 'application/json',
            'mcp-protocol-version': '2026-07-28',
            'mcp-method': method,
            ...(name === undefined ? {} : { 'mcp-name': name }),
          },
          body: JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta: meta } }),
        });
      const stream = await send(7, 'subscriptions/listen', { notifications: { toolsListChanged: true } });
      const events = new EventReader(stream);
      expect(await events.message()).toMatchObject({ method: 'notifications/subscriptions/acknowledged' });
      const called = await send(8, 'tools/call', { name: 'asking__change_list', arguments: {} }, 'asking__change_list');
      expect(called.status).toBe(200);
      await called.text();
      expect(await events.message()).toMatchObject({
        method: 'notifications/tools/list_changed',
        params: { _meta: { 'io.modelcontextprotocol/subscriptionId': 7 } },
      });
      await events.cancel();
    });
  });

  test('refuses what a server’s own endpoint refuses: streams without a session, and an initialize that is not worth keeping', async () => {
    const get = (headers: Record<string, string>) =>
      fetch(`${edge.url}/mcp`, { headers: { accept: 'text/event-stream', ...headers } });
    for (const headers of [{}, { 'mcp-protocol-version': '2026-07-28' }]) {
      const refused = await get(headers);
      expect([refused.status, refused.headers.get('allow')]).toEqual([405, 'POST, OPTIONS']);
    }
    const wire = new WireClient(() => `${edge.url}/mcp`, '..');
    const clientInfo = { name: 'x'.repeat(300_000), version: '1' };
    const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo };
    const tooLarge = await wire.post({ jsonrpc: '2.0', id: 1, method: 'initialize', params });
    expect([tooLarge.status, await tooLarge.json()]).toMatchObject([413, { id: 1 }]);
  });

  test('sessions of one endpoint mean nothing at another', async () => {
    const headers = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' };
    const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } };
    const opened = await fetch(`${edge.url}/time/mcp`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params }),
    });
    const session = opened.headers.get('mcp-session-id') ?? '';
    const body = JSON.stringify({ jsonrpc: '2.0', id: 2, method: 'tools/list' });
    const other = await fetch(`${edge.url}/mcp`, {
      method: 'POST',
      headers: { ...headers, 'mcp-session-id': session },
      body,
    });
    expect(other.status).toBe(404);
  });
});

describe('a stream that broke', () => {
  const opened = async () => {
    const wire = new WireClient(() => `${edge.url}/mcp`, '..');
    await (await wire.initialize()).text();
    return wire;
  };
  const step = { name: 'stepping__step', arguments: { steps: 6, ms: 150 } };
  const call = { jsonrpc: '2.0', id: 1, method: 'tools/call', params: step } as const;
  const ids = (text: string) => [...text.matchAll(/^id: (.*)$/gm)].map(([, id]) => id ?? '');

  test('leads its client back to the server: every message once, in order', async () => {
    const wire = await opened();
    const reader = new EventReader(await wire.post(call));
    let before = '';
    while (!before.includes('"data":2')) before += `${await reader.block()}\n\n`;
    await reader.cancel();
    const last = ids(before).at(-1) ?? '';
    expect(last).toMatch(/^stepping~e\.[\w-]+\.2$/);
    const rest = await (await wire.get({ 'last-event-id': last })).text();
    const data = [...`${before}${rest}`.matchAll(/"data":(\d)/g)].map(([, n]) => Number(n));
    expect(data).toEqual([1, 2, 3, 4, 5, 6]);
    expect(rest).toContain('"text":"done"');
    const after = await wire.get({ 'last-event-id': ids(rest).at(-1) ?? '' });
    expect([after.status, after.headers.get('allow')]).toEqual([405, 'POST, DELETE, OPTIONS']);
  });

  test('is not found at a server that the session never used', async () => {
    const wire = await opened();
    expect((await wire.get({ 'last-event-id': 'stepping~e.AbCdEfGh.1' })).status).toBe(405);
  });
});
