/** The stateless era (2026-07-28) at servers of the edge, by hand and with the SDK's client. */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest } from './edge-under-test.ts';
import { postModern, REVISION } from './modern-client.ts';

const path = (file: string) => new URL(file, import.meta.url).pathname;

let edge: UnderTest;
beforeAll(async () => {
  edge = await edgeUnderTest({
    fixture: path('../conformance/edge.ts'),
    'asking-v1': path('./asking-server-v1.ts'),
    'asking-v2': path('./asking-server.ts'),
  });
  // Nothing here needs an origin.
  await edge.origin.close();
});
afterAll(() => edge.stop());

const at = (server: string) => `${edge.url}/${server}/mcp`;
const bodyOf = async (response: Response) => (await response.json()) as Record<string, Record<string, unknown>>;
const call = (server: string, name: string, args: object = {}, options = {}) =>
  postModern(at(server), 'tools/call', { name, arguments: args }, options);

describe.each(['fixture', 'asking-v1'])('%s', (server) => {
  test('discover names the revision, the capabilities and the server', async () => {
    const response = await postModern(at(server), 'server/discover');
    expect(response.status).toBe(200);
    expect(response.headers.has('mcp-session-id')).toBe(false);
    expect(await bodyOf(response)).toMatchObject({
      id: 1,
      result: {
        resultType: 'complete',
        supportedVersions: [REVISION],
        capabilities: { tools: {} },
        ttlMs: expect.any(Number),
        cacheScope: expect.stringMatching(/^(public|private)$/),
        _meta: { 'io.modelcontextprotocol/serverInfo': { name: expect.any(String) } },
      },
    });
  });

  test('a list carries hints for caches', async () => {
    expect(await bodyOf(await postModern(at(server), 'tools/list'))).toMatchObject({
      result: {
        resultType: 'complete',
        tools: expect.any(Array),
        ttlMs: expect.any(Number),
        cacheScope: expect.any(String),
      },
    });
  });

  test('a method of nobody', async () => {
    const response = await postModern(at(server), 'stars/count', {}, { id: 'x' });
    expect([response.status, await bodyOf(response)]).toMatchObject([404, { id: 'x', error: { code: -32601 } }]);
  });

  test('a change that one connection makes is heard by a listener on another, under its own id', async () => {
    const leaving = new AbortController();
    const listening = await postModern(
      at(server),
      'subscriptions/listen',
      { notifications: { toolsListChanged: true } },
      { id: 'sub-7', signal: leaving.signal },
    );
    expect(listening.headers.get('content-type')).toContain('text/event-stream');
    expect(listening.headers.get('x-accel-buffering')).toBe('no');
    const reader = new EventReader(listening);
    const _meta = { 'io.modelcontextprotocol/subscriptionId': 'sub-7' };
    expect(await reader.message()).toMatchObject({
      method: 'notifications/subscriptions/acknowledged',
      params: { notifications: { toolsListChanged: true }, _meta },
    });
    await (await call(server, server === 'fixture' ? 'test_trigger_tool_change' : 'change_list')).text();
    expect(await reader.message()).toMatchObject({ method: 'notifications/tools/list_changed', params: { _meta } });
    leaving.abort();
  });
});

describe('a server that only knows sessions', () => {
  test('answers, with what the revision adds', async () => {
    expect(await bodyOf(await call('asking-v1', 'subscriptions'))).toMatchObject({
      result: { resultType: 'complete', content: [{ type: 'text', text: '' }] },
    });
  });

  test('is told that what it asks cannot be asked, and so is the client', async () => {
    const response = await call('asking-v1', 'ask_name', {}, { capabilities: { elicitation: {} } });
    expect([response.status, await bodyOf(response)]).toMatchObject([
      400,
      { error: { code: -32021, data: { requiredCapabilities: { elicitation: {} } } } },
    ]);
  });

  test.each([
    ['no level', {}, []],
    ['level error', { 'io.modelcontextprotocol/logLevel': 'error' }, ['at large']],
  ])('logs for a request with %s', async (_, meta, expected) => {
    const response = await call('asking-v1', 'log', {}, { meta });
    const text = await response.text();
    const logged = [...text.matchAll(/"data":"([^"]*)"/g)].map(([, data]) => data);
    expect(logged).toEqual(expected);
  });

  test('a tool that throws is an error of the tool', async () => {
    expect(await bodyOf(await call('asking-v1', 'fail'))).toMatchObject({ result: { isError: true } });
  });
});

describe.each(['asking-v1', 'asking-v2'])('%s', (server) => {
  test('a slow call is a stream with a first byte at once; the next call is not held up', async () => {
    const leaving = new AbortController();
    const started = performance.now();
    const slow = await call(server, 'wait', {}, { signal: leaving.signal });
    expect(performance.now() - started).toBeLessThan(12_000);
    expect(slow.headers.get('content-type')).toContain('text/event-stream');
    expect(await bodyOf(await call(server, 'subscriptions'))).toMatchObject({ result: {} });
    leaving.abort();
  });
});

describe('the endpoint', () => {
  test.each(['GET', 'DELETE'])('%s is not a method of this revision', async (method) => {
    const response = await fetch(at('fixture'), { method, headers: { 'mcp-protocol-version': REVISION } });
    expect(response.status).toBe(405);
  });

  test('a session id is ignored', async () => {
    const response = await postModern(at('fixture'), 'tools/list', {}, { headers: { 'mcp-session-id': 'x' } });
    expect(response.status).toBe(200);
    expect(response.headers.has('mcp-session-id')).toBe(false);
  });

  test('a notification is taken', async () => {
    const response = await fetch(at('fixture'), {
      method: 'POST',
      headers: { accept: '*/*', 'content-type': 'application/json', 'mcp-protocol-version': REVISION },
      body: '{"jsonrpc":"2.0","method":"notifications/cancelled"}',
    });
    expect([response.status, await response.text()]).toEqual([202, '']);
  });

  test('a page of another site', async () => {
    const response = await postModern(at('fixture'), 'tools/list', {}, { headers: { origin: 'https://evil.example' } });
    expect(response.status).toBe(403);
  });

  test('an unknown server', async () => {
    const response = await postModern(at('nothing'), 'server/discover');
    expect([response.status, await bodyOf(response)]).toMatchObject([
      404,
      { id: 1, error: { data: { code: 'unknown_server', servers: ['asking-v1', 'asking-v2', 'fixture'] } } },
    ]);
  });
});

describe.each(['auto', { pin: REVISION }])('a client of SDK v2, negotiating %j', (mode) => {
  test.each(['fixture', 'asking-v1'])('lists and calls %s in the stateless era', async (server) => {
    const client = new Client(
      { name: 'v2', version: '1' },
      { capabilities: { elicitation: {} }, versionNegotiation: { mode: mode as 'auto' } },
    );
    client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { name: 'Ada' } }));
    await client.connect(new StreamableHTTPClientTransport(new URL(at(server))));
    expect(client.getNegotiatedProtocolVersion()).toBe(REVISION);
    expect((await client.listTools()).tools.length).toBeGreaterThan(3);
    const name = server === 'fixture' ? 'test_simple_text' : 'subscriptions';
    expect((await client.callTool({ name, arguments: {} })).content).toHaveLength(1);
    await client.close();
  });
});
