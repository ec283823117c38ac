/** The stateless era (2026-07-28) with an origin behind the edge: what crosses, what an abort does, what breaks. */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ERA_HEADER } from '../../shared/origin-api.ts';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { envelope, type ModernOptions, postModern, REVISION } from './modern-client.ts';
import { event, type Handler, json, plain, refuse, result, type ScriptedLink } from './scripted-origin.ts';

let edge: UnderTest;
let link: ScriptedLink;
beforeAll(async () => {
  edge = await edgeUnderTest();
  link = await edge.dial();
  await link.hello(['notes', 'wiki']);
});
beforeEach(() => {
  edge.origin.handler = plain;
  edge.origin.arrived.length = 0;
});
afterAll(() => edge.stop());

const post = (method: string, params: Record<string, unknown> = {}, options: ModernOptions = {}, server = 'notes') =>
  postModern(`${edge.url}/${server}/mcp`, method, params, options);
const callTool = (options: ModernOptions = {}) => post('tools/call', { name: 'x', arguments: {} }, options);
const stream: Record<string, string> = { 'content-type': 'text/event-stream' };
const arrived = (n = 0) => edge.origin.arrived[n] ?? expect.fail('nothing arrived');
const failing =
  (code: number): Handler =>
  ({ message }, response) =>
    json(response, { jsonrpc: '2.0', id: 'id' in message ? message.id : null, error: { code, message: 'no' } });

describe('carrying', () => {
  test('the message as it came, the era, the headers of arguments, and nothing else of the client', async () => {
    const response = await callTool({
      id: 'q-1',
      meta: { traceparent: '00-1-2-01' },
      headers: { 'Mcp-Param-Region': 'eu', authorization: 'Bearer of the client', cookie: 'a=b', 'x-custom': 'c' },
    });
    expect([response.status, await response.json()]).toEqual([
      200,
      { jsonrpc: '2.0', id: 'q-1', result: { echo: 'tools/call' } },
    ]);
    const { message, headers, grant } = arrived();
    expect(message).toEqual(
      envelope('tools/call', { name: 'x', arguments: {} }, { id: 'q-1', meta: { traceparent: '00-1-2-01' } }),
    );
    expect(headers).toMatchObject({ [ERA_HEADER]: 'modern', 'mcp-param-region': 'eu' });
    expect(JSON.stringify(headers)).not.toMatch(/of the client|a=b|x-custom/);
    expect(grant).toMatchObject({ origin: 'local', principal: 'anonymous', server: 'notes', machine: 'notes' });
    expect(grant.session).toMatch(/^lane\./);
  });

  test('every request of a principal at a server is in one lane; another server is another', async () => {
    await Promise.all([callTool(), post('tools/list'), callTool()]);
    await post('tools/list', {}, {}, 'wiki');
    const lanes = edge.origin.arrived.map(({ grant }) => grant.session);
    expect(new Set(lanes.slice(0, 3)).size).toBe(1);
    expect(lanes[3]).not.toBe(lanes[0]);
  });

  test('a session beside it stays a session', async () => {
    const wire = new WireClient(() => edge.url, 'notes');
    await wire.initialize();
    await wire.call('tools/list');
    expect(arrived(1).headers[ERA_HEADER]).toBeUndefined();
    expect(arrived(1).grant.session).toBe(wire.session);
  });

  test.each([
    [-32601, 404],
    [-32020, 400],
    [-32021, 400],
    [-32022, 400],
    [-32602, 200],
    [-32000, 200],
  ])('an error %i is answered with status %i', async (code, status) => {
    edge.origin.handler = failing(code);
    const response = await callTool({ id: 'e' });
    expect([response.status, await response.json()]).toMatchObject([status, { id: 'e', error: { code } }]);
  });

  test.each(['JSON', 'an event stream'])('10 MB each way, answered as %s', async (form) => {
    edge.origin.handler = ({ message }, response) => {
      const { text } = (message as unknown as { params: { text: string } }).params;
      if (form === 'JSON') return json(response, result(message, { text }));
      response.writeHead(200, stream).end(event(result(message, { text })));
    };
    const text = 'ä'.repeat(5 * 1024 * 1024);
    const response = await post('tools/call', { name: 'x', text });
    const answer = form === 'JSON' ? await response.json() : await new EventReader(response).message();
    expect((answer as { result: { text: string } }).result.text === text).toBe(true);
  });

  test('a stream as it comes', async () => {
    const gate = Promise.withResolvers<void>();
    edge.origin.handler = async ({ message }, response) => {
      response.writeHead(200, stream);
      response.write(': keep-alive\n\n');
      await gate.promise;
      response.end(event(result(message)));
    };
    const response = await callTool();
    expect(response.headers.get('x-accel-buffering')).toBe('no');
    const reader = new EventReader(response);
    expect(await reader.block()).toBe(': open');
    expect(await reader.block()).toBe(': keep-alive');
    gate.resolve();
    expect(await reader.message()).toMatchObject({ id: 1, result: {} });
    expect(await reader.block()).toBeNull();
  });
});

describe('arguments that travel in headers', () => {
  const listing =
    (header?: string): Handler =>
    ({ message }, response) => {
      const region = { type: 'string', ...(header && { 'x-mcp-header': header }) };
      const tools = [{ name: 'x', inputSchema: { type: 'object', properties: { region } } }];
      json(response, result(message, 'method' in message && message.method === 'tools/list' ? { tools } : {}));
    };
  const call = (headers: Record<string, string> = {}) =>
    post('tools/call', { name: 'x', arguments: { region: 'eu' } }, { headers });

  test('must agree once a list has named them, until a list does so no more', async () => {
    edge.origin.handler = listing('Region');
    expect((await call()).status).toBe(200);
    await (await post('tools/list')).text();
    const [refused, other, agreed] = [
      await call(),
      await call({ 'mcp-param-region': 'us' }),
      await call({ 'Mcp-Param-Region': 'eu' }),
    ];
    expect([refused.status, await refused.json()]).toMatchObject([400, { id: 1, error: { code: -32020 } }]);
    expect([other.status, agreed.status]).toEqual([400, 200]);
    expect(edge.origin.arrived).toHaveLength(3);
    edge.origin.handler = listing();
    await (await post('tools/list')).text();
    expect((await call()).status).toBe(200);
  });
});

describe('a client that leaves', () => {
  test.each([
    ['before the answer begins', false],
    ['in the middle of the stream', true],
  ])('%s: the exchange with the origin is broken off', async (_, streaming) => {
    const closed = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    edge.origin.handler = (_arrived, response) => {
      if (streaming) response.writeHead(200, stream).write(': open\n\n');
      const beat = streaming ? setInterval(() => response.write(': beat\n\n'), 100) : undefined;
      response.once('close', () => {
        clearInterval(beat);
        closed.resolve();
      });
      begun.resolve();
    };
    const leaving = new AbortController();
    const call = callTool({ signal: leaving.signal });
    await begun.promise;
    if (streaming) await new EventReader(await call).block();
    leaving.abort();
    await call.catch(() => undefined);
    await closed.promise;
  });
});

describe('what an origin reports', () => {
  test('a stale route: the Directory is asked anew, once', async () => {
    await callTool();
    const discovery = { copies: 'none', maxAgeS: 60 };
    link.send({
      type: 'hello',
      version: 1,
      epoch: 'epoch-0001',
      agent: 'scripted',
      servers: ['notes', 'wiki'].map((name) => ({
        name,
        runtime: 'process',
        machine: `${name}-2`,
        deployment: 'd2',
        discovery,
      })),
    });
    expect(await link.next()).toMatchObject({ type: 'welcome' });
    edge.origin.handler = (message, response) =>
      message.grant.machine === 'notes' ? refuse(response, 409, 'route_stale') : plain(message, response);
    expect(await (await callTool()).json()).toMatchObject({ result: {} });
    expect(edge.origin.arrived.map(({ grant }) => grant.machine)).toEqual(['notes', 'notes', 'notes-2']);
    edge.origin.handler = (_, response) => refuse(response, 409, 'route_stale');
    expect(await (await callTool()).json()).toMatchObject({ error: { data: { code: 'server_failed' } } });
  });

  test.each([
    ['overloaded', 503],
    ['machine_failed', 503],
    ['server_failed', 502],
  ] as const)('%s is told in band: a probe is never answered with a 5xx', async (code, status) => {
    edge.origin.handler = (_, response) => refuse(response, status, code);
    const response = await post('server/discover');
    expect([response.status, await response.json()]).toMatchObject([200, { id: 1, error: { data: { code } } }]);
  });

  test.each([
    ['tools/call', 'outcome_unknown'],
    ['server/discover', 'origin_away'],
  ])('%s whose exchange breaks means %s', async (method, code) => {
    edge.origin.handler = (_, response) => void response.socket?.destroy();
    const response = await post(method, method === 'tools/call' ? { name: 'x' } : {});
    expect([response.status, await response.json()]).toMatchObject([200, { error: { data: { code } } }]);
  });
});

describe('a client of SDK v2 in mode auto', () => {
  const discovered = {
    resultType: 'complete',
    supportedVersions: [REVISION],
    capabilities: { tools: {} },
    ttlMs: 0,
    cacheScope: 'private',
    _meta: { 'io.modelcontextprotocol/serverInfo': { name: 'scripted', version: '1' } },
  };
  const connect = async () => {
    const client = new Client({ name: 'v2', version: '1' }, { versionNegotiation: { mode: 'auto' } });
    await client.connect(new StreamableHTTPClientTransport(new URL(`${edge.url}/notes/mcp`)));
    const version = client.getNegotiatedProtocolVersion();
    await client.close();
    return version;
  };

  test('waits for a machine that boots: the probe is held on a stream', async () => {
    edge.origin.handler = ({ message }, response) => {
      response.writeHead(200, stream);
      const beat = setInterval(() => response.write(': keep-alive\n\n'), 200);
      setTimeout(() => {
        clearInterval(beat);
        response.end(event(result(message, discovered)));
      }, 1500);
    };
    expect(await connect()).toBe(REVISION);
  });

  test.each<[string, Handler]>([
    ['says that it has no such method', failing(-32601)],
    ['does not answer', (_, response) => void response.socket?.destroy()],
    ['ends its stream empty', (_, response) => void response.writeHead(200, stream).end(': open\n\n')],
    ['has no machine', (_, response) => refuse(response, 503, 'machine_failed')],
  ])('falls back to a session when the probe finds an origin that %s', async (_, handler) => {
    edge.origin.handler = (message, response) =>
      message.headers[ERA_HEADER] === 'modern' ? handler(message, response) : plain(message, response);
    expect(await connect()).toBe('2025-11-25');
  });
});
