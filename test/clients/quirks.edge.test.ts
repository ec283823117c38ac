/**
 * What real clients do that a strict reading of the specification does not expect, and what they get for it. Each is a
 * row of docs/clients.md, where the public issue stands that it comes from.
 */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from '../edge/edge-under-test.ts';

const path = (file: string) => new URL(file, import.meta.url).pathname;

let edge: UnderTest;
beforeAll(async () => {
  edge = await edgeUnderTest({
    time: path('../../servers/time.ts'),
    asking: path('../edge/asking-server.ts'),
  });
});
afterAll(() => edge.stop());

const client = (server = 'time') => new WireClient(() => edge.url, server);
const opened = async (server = 'time') => {
  const wire = client(server);
  expect((await wire.initialize()).status).toBe(200);
  return wire;
};
const list = { jsonrpc: '2.0', id: 7, method: 'tools/list' } as const;
const initialize = {
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'quirk', version: '1' } },
} as const;
const initialized = { jsonrpc: '2.0', method: 'notifications/initialized' } as const;

/** A request as it is written here: fetch would add an Accept, and lets no test set Origin's companions. */
const raw = (method: string, headers: Record<string, string>, body?: object) =>
  new Promise<{ status: number | undefined; headers: IncomingHttpHeaders }>((resolve, reject) => {
    const request = httpRequest(`${edge.url}/time/mcp`, { method, headers }, (response) => {
      response.resume();
      response.once('end', () => resolve({ status: response.statusCode, headers: response.headers }));
    });
    request.once('error', reject);
    request.end(body && JSON.stringify(body));
  });

describe('session ids', () => {
  test('a client that drops its session id is told to initialize, in the answer to its own request, and then goes on', async () => {
    const wire = await opened();
    wire.session = undefined;
    const refused = await wire.post(list);
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({
      id: 7,
      error: { message: expect.stringContaining('initialize'), data: { code: 'session_required' } },
    });
    await wire.initialize();
    expect((await wire.post(list)).status).toBe(200);
  });

  test('a client that initializes before every batch gets a session each time, and the earlier ones go on', async () => {
    const wires = [await opened(), await opened(), await opened()];
    expect(new Set(wires.map(({ session }) => session)).size).toBe(3);
    for (const wire of wires) expect((await wire.post(list)).status).toBe(200);
  });

  test.each(['an ended', 'an open'])('an initialize that still carries %s session opens another', async (state) => {
    const wire = await opened();
    const { session } = wire;
    if (state === 'an ended') await wire.request('DELETE');
    await wire.initialize();
    expect(wire.session).toMatch(/^[\x21-\x7e]+$/);
    expect(wire.session).not.toBe(session);
    expect((await wire.post(list)).status).toBe(200);
  });

  test('an ended session is 404 for everything, a second DELETE too, so that its client initializes', async () => {
    const wire = await opened();
    expect((await wire.request('DELETE')).status).toBe(204);
    for (const again of [() => wire.request('DELETE'), () => wire.get(), () => wire.post(list)]) {
      const response = await again();
      expect(response.status).toBe(404);
      expect(await response.json()).toMatchObject({ error: { data: { code: 'session_not_found' } } });
    }
  });
});

describe('protocol versions', () => {
  test('a client that never sends MCP-Protocol-Version is served, whatever it negotiated', async () => {
    const wire = client();
    const response = await wire.post(initialize);
    expect(await response.json()).toMatchObject({ result: { protocolVersion: '2025-11-25' } });
    wire.session = response.headers.get('mcp-session-id') ?? undefined;
    expect((await wire.post(initialized)).status).toBe(202);
    expect((await wire.post(list)).status).toBe(200);
    const stream = await wire.get();
    expect(stream.status).toBe(200);
    await stream.body?.cancel();
    expect((await wire.request('DELETE')).status).toBe(204);
  });

  test.each(['2025-11-25', '2025-06-18', '2099-01-01'])(
    'the header %s on initialize does not stop the negotiation, which is in the body',
    async (version) => {
      const response = await client().post(initialize, { 'mcp-protocol-version': version });
      expect(response.status).toBe(200);
      expect(await response.json()).toMatchObject({ result: { protocolVersion: '2025-11-25' } });
    },
  );

  test('a revision that nobody knows is answered with one that is served', async () => {
    const params = { ...initialize.params, protocolVersion: '2099-01-01' };
    const answer = await client().call('initialize', params);
    expect(answer).toMatchObject({ result: { protocolVersion: expect.stringMatching(/^20\d\d-\d\d-\d\d$/) } });
  });
});

describe('server/discover comes first', () => {
  const probe = {
    jsonrpc: '2.0',
    id: 'probe-1',
    method: 'server/discover',
    params: {
      _meta: {
        'io.modelcontextprotocol/protocolVersion': '2026-07-28',
        'io.modelcontextprotocol/clientInfo': { name: 'quirk', version: '1' },
        'io.modelcontextprotocol/clientCapabilities': {},
      },
    },
  } as const;
  const headers = { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'server/discover' };

  test('the probe gets its own id back, and no status that its client takes for an outage or a lost session', async () => {
    const response = await client().post(probe, headers);
    expect([200, 400]).toContain(response.status);
    const answer = (await response.json()) as { id: unknown; error?: { code: number } };
    expect(answer.id).toBe('probe-1');
    // -32022 would say that the server is of that era, and stricter clients then do not fall back.
    expect(answer.error?.code).not.toBe(-32022);
  });

  test('an initialize after the probe opens a session, whatever the probe said', async () => {
    const wire = client();
    await (await wire.post(probe, headers)).text();
    expect((await wire.initialize()).status).toBe(200);
    expect((await wire.post(list)).status).toBe(200);
  });

  test('a client that probes connects and calls', async () => {
    const probing = new Client({ name: 'quirk', version: '1' }, { versionNegotiation: { mode: 'auto' } });
    await probing.connect(new StreamableHTTPClientTransport(new URL(`${edge.url}/time/mcp`)));
    expect((await probing.listTools()).tools).toHaveLength(2);
    await probing.close();
  });
});

describe('GET and DELETE before there is a session', () => {
  test.each([
    ['GET', { accept: 'text/event-stream' }],
    ['GET', { accept: 'application/json, text/event-stream' }],
    ['GET', { accept: 'text/event-stream', 'mcp-protocol-version': '2025-11-25' }],
    ['GET', { accept: 'text/event-stream', 'mcp-protocol-version': '2026-07-28' }],
    ['DELETE', {}],
    ['DELETE', { 'mcp-protocol-version': '2026-07-28' }],
  ])('%s %o is 405 and says that POST is taken: no outage, no lost session', async (method, headers) => {
    const { status, headers: answered } = await raw(method, headers as Record<string, string>);
    expect(status).toBe(405);
    expect(answered.allow).toBe('POST, OPTIONS');
  });

  test('a session that exists has its stream, one that does not is 404', async () => {
    const wire = await opened();
    const stream = await wire.get();
    expect([stream.status, stream.headers.get('content-type')]).toEqual([200, 'text/event-stream']);
    await stream.body?.cancel();
    wire.session = 'A'.repeat(38);
    expect((await wire.get()).status).toBe(404);
  });
});

describe('streams through proxies', () => {
  test('the stream of a session and the stream of a call have a first byte at once and ask not to be buffered', async () => {
    const wire = await opened('asking');
    const calling = {
      jsonrpc: '2.0',
      id: 5,
      method: 'tools/call',
      params: { name: 'ask_name', arguments: {} },
    } as const;
    for (const stream of [await wire.get(), await wire.post(calling)]) {
      expect(Object.fromEntries(stream.headers)).toMatchObject({
        'content-type': 'text/event-stream',
        'cache-control': 'no-cache, no-transform',
        'x-accel-buffering': 'no',
      });
      const reader = new EventReader(stream);
      expect(await reader.block()).toMatch(/^(: |id: )/);
      await reader.cancel();
    }
  });
});

describe('headers', () => {
  test.each([
    ['that agree with the body', { 'mcp-method': 'tools/list' }],
    ['that do not', { 'mcp-method': 'tools/call', 'mcp-name': 'another', 'mcp-param-x': '=?base64?!?=' }],
  ])('Mcp-Method and Mcp-Name %s mean nothing in a session', async (_, headers) => {
    const wire = client();
    const response = await wire.post(initialize, { 'mcp-method': 'initialize' });
    wire.session = response.headers.get('mcp-session-id') ?? undefined;
    expect((await wire.post(list, headers as Record<string, string>)).status).toBe(200);
  });

  test('a POST without any Accept takes whatever comes', async () => {
    expect((await raw('POST', { 'content-type': 'application/json' }, initialize)).status).toBe(200);
  });
});

describe('pages', () => {
  const origin = 'http://localhost:6274';
  const preflight = async (asked: string) => {
    const headers = { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked };
    const answer = await raw('OPTIONS', headers);
    expect(answer.status).toBe(204);
    expect(answer.headers['access-control-allow-origin']).toBe(origin);
    expect(answer.headers['access-control-allow-methods']).toBe('POST, GET, DELETE, OPTIONS');
    return String(answer.headers['access-control-allow-headers']).toLowerCase().split(', ');
  };

  test('may send every header of both eras, and those that tools name', async () => {
    const wanted = [
      'accept',
      'authorization',
      'content-type',
      'last-event-id',
      'mcp-method',
      'mcp-name',
      'mcp-param-region',
      'mcp-param-x-y',
      'mcp-protocol-version',
      'mcp-session-id',
    ];
    expect(await preflight(wanted.join(','))).toEqual(expect.arrayContaining(wanted));
  });

  test('may not send others', async () => {
    const allowed = await preflight('x-forwarded-for, mcp-parameter, mcp-param-a b');
    expect(allowed.filter((name) => /forwarded|parameter|param/.test(name))).toEqual([]);
  });

  test('may read the id of the session on the answer that has it', async () => {
    const headers = { origin, accept: '*/*', 'content-type': 'application/json' };
    const answer = await raw('POST', headers, initialize);
    expect(answer.headers['mcp-session-id']).toMatch(/./);
    expect(String(answer.headers['access-control-expose-headers']).toLowerCase()).toContain('mcp-session-id');
  });
});
