/** HTTP+SSE of 2024-11-05 at a real edge, with the clients of both SDKs and by hand. */
import { Client, SSEClientTransport } from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/sse.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest } from './edge-under-test.ts';
import { event, json, PROTOCOL, plain, result } from './scripted-origin.ts';

const path = (file: string) => new URL(file, import.meta.url).pathname;

let edge: UnderTest;
beforeAll(async () => {
  edge = await edgeUnderTest({ asking: path('./asking-server.ts') });
  await (await edge.dial()).hello(['notes']);
});
beforeEach(() => {
  edge.origin.handler = plain;
  edge.origin.arrived.length = 0;
});
afterAll(() => edge.stop());

const url = (server: string) => new URL(`${edge.url}/${server}/sse`);
const textOf = (answer: unknown) => (answer as { content: { text: string }[] }).content[0]?.text;

async function connected(server: string): Promise<Client> {
  const client = new Client({ name: 'v2', version: '1' }, { capabilities: { elicitation: {}, sampling: {} } });
  client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { name: 'Ada' } }));
  await client.connect(new SSEClientTransport(url(server)));
  return client;
}

/** A stream by hand, with the URL that its first event names. */
async function opened(server = 'notes') {
  const response = await fetch(url(server), { headers: { accept: 'text/event-stream' } });
  const reader = new EventReader(response);
  const [, endpoint = ''] = /^event: endpoint\ndata: (.*)$/.exec((await reader.block()) ?? '') ?? [];
  const post = (message: unknown, init: RequestInit = {}) =>
    fetch(new URL(endpoint, edge.url), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: typeof message === 'string' ? message : JSON.stringify(message),
      ...init,
    });
  return { response, reader, endpoint, post };
}
const initialize = {
  jsonrpc: '2.0',
  id: 0,
  method: 'initialize',
  params: { protocolVersion: '2024-11-05', capabilities: {}, clientInfo: { name: 'wire', version: '1' } },
};

describe('a server of the edge', () => {
  test('a client of SDK v2 lists, calls and is asked', async () => {
    const client = await connected('asking');
    expect((await client.listTools()).tools.length).toBeGreaterThan(5);
    expect(textOf(await client.callTool({ name: 'ask_name', arguments: {} }))).toBe('accept {"name":"Ada"}');
    await client.close();
  });

  test('a client of SDK v1 lists, calls and is asked', async () => {
    const client = new ClientV1({ name: 'v1', version: '1' }, { capabilities: { elicitation: {} } });
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: 'accept' as const, content: { name: 'Bob' } }));
    await client.connect(new TransportV1(url('asking')));
    expect((await client.listTools()).tools.length).toBeGreaterThan(5);
    expect(textOf(await client.callTool({ name: 'ask_name', arguments: {} }))).toBe('accept {"name":"Bob"}');
    await client.close();
  });

  test('what concerns the session comes on the same stream', async () => {
    const client = await connected('asking');
    const changed = new Promise<void>((resolve) =>
      client.setNotificationHandler('notifications/tools/list_changed', () => resolve()),
    );
    await client.callTool({ name: 'change_list', arguments: {} });
    await changed;
    await client.close();
  });

  test('a cancelled call ends, and the next one is served', async () => {
    const client = await connected('asking');
    const cancelling = new AbortController();
    const call = client.callTool({ name: 'wait', arguments: {} }, { signal: cancelling.signal });
    setTimeout(() => cancelling.abort(), 300);
    await expect(call).rejects.toThrow();
    expect(textOf(await client.callTool({ name: 'subscriptions', arguments: {} }))).toBe('');
    await client.close();
  });
});

describe('a server of an origin', () => {
  test('fifty calls at the same time get their own answers', async () => {
    edge.origin.handler = ({ message, ...rest }, response) => {
      if (!('method' in message) || message.method !== 'tools/call') return plain({ message, ...rest }, response);
      const answer = result(message, { content: [{ type: 'text', text: String(message.params?.name) }] });
      // The later ones are answered first, and some as streams.
      const n = Number(message.params?.name);
      setTimeout(
        () =>
          n % 2 === 0
            ? json(response, answer)
            : response.writeHead(200, { 'content-type': 'text/event-stream' }).end(event(answer)),
        100 - n,
      );
    };
    const client = await connected('notes');
    const names = Array.from({ length: 50 }, (_, n) => String(n));
    const answers = await Promise.all(names.map((name) => client.callTool({ name, arguments: {} })));
    expect(answers.map(textOf)).toEqual(names);
    await client.close();
  });

  test('10 MB each way', async () => {
    edge.origin.handler = (arrived, response) => {
      const { message } = arrived;
      if (!('method' in message) || message.method !== 'tools/call') return plain(arrived, response);
      const { text } = (message.params as { arguments: { text: string } }).arguments;
      json(response, result(message, { content: [{ type: 'text', text }] }));
    };
    const client = await connected('notes');
    const text = 'ä'.repeat(5 * 1024 * 1024);
    expect(textOf(await client.callTool({ name: 'echo', arguments: { text } })) === text).toBe(true);
    await client.close();
  });

  test('the messages arrive in the order in which they were posted', async () => {
    const { post, reader } = await opened();
    await post(initialize);
    expect(await reader.message()).toMatchObject({ id: 0, result: { protocolVersion: PROTOCOL } });
    await post({ jsonrpc: '2.0', method: 'notifications/initialized' });
    for (let id = 1; id <= 20; id++) await post({ jsonrpc: '2.0', method: 'notifications/progress', params: { id } });
    await post({ jsonrpc: '2.0', id: 21, method: 'ping' });
    expect(await reader.message()).toMatchObject({ id: 21 });
    const ids = edge.origin.arrived.map(({ message }) => ('params' in message ? message.params?.id : undefined));
    expect(ids.filter((id) => typeof id === 'number')).toEqual(Array.from({ length: 20 }, (_, n) => n + 1));
    await reader.cancel();
  });

  test('a stream that is closed ends its session at the origin, and its id', async () => {
    const { post, reader } = await opened();
    await post(initialize);
    await reader.message();
    // Streams of other tests may end at the same time.
    const session = edge.origin.arrived.at(-1)?.grant.session;
    const ended = () => edge.origin.ended.filter((grant) => grant.session === session).length;
    expect(ended()).toBe(0);
    await reader.cancel();
    await expect.poll(ended, { timeout: 45_000, interval: 200 }).toBe(1);
    await expect.poll(async () => (await post({ jsonrpc: '2.0', id: 1, method: 'ping' })).status).toBe(404);
  });
});

describe('the wire', () => {
  test('the first event names where to post, from the root; each message is accepted', async () => {
    const { response, endpoint, post, reader } = await opened();
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    expect(response.headers.get('x-accel-buffering')).toBe('no');
    expect(endpoint).toMatch(/^\/notes\/messages\?sessionId=[0-9a-f]{32}$/);
    expect((await post(initialize)).status).toBe(202);
    await reader.cancel();
  });

  test('a request before initialize is told so', async () => {
    const { post, reader } = await opened();
    await post({ jsonrpc: '2.0', id: 1, method: 'tools/list' });
    expect(await reader.message()).toMatchObject({ id: 1, error: { data: { code: 'session_required' } } });
    await reader.cancel();
  });

  test('a second initialize is refused, and the session goes on', async () => {
    const { post, reader } = await opened();
    for (const id of [0, 1]) await post({ ...initialize, id });
    expect(await reader.message()).toMatchObject({ id: 0, result: {} });
    expect(await reader.message()).toMatchObject({ id: 1, error: { data: { code: 'invalid_request' } } });
    await post({ jsonrpc: '2.0', id: 2, method: 'ping' });
    expect(await reader.message()).toMatchObject({ id: 2, result: {} });
    await reader.cancel();
  });

  test.each([
    ['no stream', '?sessionId=00000000000000000000000000000000', 404, 'session_not_found'],
    ['an id of another form', '?sessionId=../x', 404, 'session_not_found'],
    ['no id', '', 404, 'session_not_found'],
  ])('a message for %s', async (_, query, status, code) => {
    const response = await fetch(`${edge.url}/notes/messages${query}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
    });
    expect([response.status, await response.json()]).toMatchObject([status, { error: { data: { code } } }]);
  });

  test("another server's stream", async () => {
    const { endpoint, reader } = await opened();
    const response = await fetch(new URL(endpoint.replace('notes', 'asking'), edge.url), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(initialize),
    });
    expect(response.status).toBe(404);
    await reader.cancel();
  });

  test.each([
    ['what is not JSON', '{', {}, 400],
    ['a batch', '[]', {}, 400],
    ['another media type', '{}', { headers: { 'content-type': 'text/plain' } }, 415],
  ])('%s is refused and the stream lives on', async (_, body, init, status) => {
    const { post, reader } = await opened();
    expect((await post(body, init)).status).toBe(status);
    await post(initialize);
    expect(await reader.message()).toMatchObject({ id: 0, result: {} });
    await reader.cancel();
  });

  test.each([
    ['an unknown server', 'nothing', { accept: 'text/event-stream' }, 404],
    ['a client that takes no stream', 'notes', { accept: 'application/json' }, 406],
    ['a page of another site', 'notes', { accept: '*/*', origin: 'https://evil.example' }, 403],
  ])('%s gets no stream', async (_, server, headers, status) => {
    expect((await fetch(url(server), { headers: headers as Record<string, string> })).status).toBe(status);
  });
});
