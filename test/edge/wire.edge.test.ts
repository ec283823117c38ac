/** What the endpoint refuses, and how: status, JSON-RPC code and stable code of every refusal. */
import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import { edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';

const TIME = new URL('../../servers/time.ts', import.meta.url).pathname;

let edge: UnderTest;
beforeAll(async () => {
  edge = await edgeUnderTest({ time: TIME, clock: TIME });
});
afterAll(() => edge.stop());

const client = (server = 'time') => new WireClient(() => edge.url, server);
const opened = async (server = 'time') => {
  const wire = client(server);
  await wire.initialize();
  return wire;
};
const refusal = async (response: Response) => {
  const body = (await response.json()) as { id: unknown; error: { code: number; data: { code: string } } };
  return [response.status, body.error.code, body.error.data.code, body.id];
};
const list = { jsonrpc: '2.0', id: 7, method: 'tools/list' } as const;

describe('a POST', () => {
  test.each([
    ['Accept without event streams', { accept: 'application/json' }, '{}', [406, -32000, 'not_acceptable', null]],
    ['another media type', { 'content-type': 'text/plain' }, '{}', [415, -32000, 'unsupported_media_type', null]],
    ['what is not JSON', {}, '{"jsonrpc":', [400, -32700, 'parse_error', null]],
    ['what is not JSON-RPC', {}, '{"id":3,"method":5}', [400, -32600, 'invalid_request', 3]],
    ['a batch without a session', {}, JSON.stringify([list]), [400, -32000, 'session_required', 7]],
    ['a null id', {}, '{"jsonrpc":"2.0","id":null,"method":"ping"}', [400, -32600, 'invalid_request', null]],
    ['no session', {}, JSON.stringify(list), [400, -32000, 'session_required', 7]],
    [
      'a session of nobody',
      { 'mcp-session-id': 'A'.repeat(38) },
      JSON.stringify(list),
      [404, -32001, 'session_not_found', 7],
    ],
    [
      'a session of another form',
      { 'mcp-session-id': '../x' },
      JSON.stringify(list),
      [404, -32001, 'session_not_found', 7],
    ],
    [
      'a page of another site',
      { origin: 'https://evil.example' },
      JSON.stringify(list),
      [403, -32000, 'forbidden_origin', null],
    ],
  ])('%s', async (_, headers, body, expected) => {
    expect(await refusal(await client().post(body, headers as Record<string, string>))).toEqual(expected);
  });

  test('a body that is not UTF-8', async () => {
    const body = new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]);
    const headers = { accept: '*/*', 'content-type': 'application/json' };
    expect(await refusal(await client().request('POST', { body, headers }))).toEqual([
      400,
      -32700,
      'parse_error',
      null,
    ]);
  });

  test('a body that is too large, by its declared length', async () => {
    const status = await new Promise((resolve, reject) => {
      const request = httpRequest(`${edge.url}/time/mcp`, {
        method: 'POST',
        headers: { accept: '*/*', 'content-type': 'application/json', 'content-length': MAX_MESSAGE_BYTES + 1 },
      });
      request.once('response', (response) => resolve(response.statusCode));
      request.once('error', reject);
      request.write('{');
    });
    expect(status).toBe(413);
  });

  test('a body that is too large, without a declared length', async () => {
    const chunk = new Uint8Array(1024 * 1024).fill(0x20);
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        controller.enqueue(chunk);
        sent += chunk.byteLength;
        if (sent > MAX_MESSAGE_BYTES) controller.close();
      },
    });
    const headers = { accept: '*/*', 'content-type': 'application/json' };
    const response = await client().request('POST', { body, headers, duplex: 'half' } as RequestInit & {
      headers: Record<string, string>;
    });
    expect(await refusal(response)).toEqual([413, -32000, 'body_too_large', null]);
  });

  test('an unknown server: the answer names those that exist', async () => {
    const response = await client('nothing').initialize();
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({
      id: 'init',
      error: {
        message: 'There is no server "nothing". Servers here: clock, time.',
        data: { code: 'unknown_server', servers: ['clock', 'time'] },
      },
    });
  });

  test('a malformed initialize is told in band, with the member at fault', async () => {
    const answer = await client().call('initialize', { protocolVersion: '2025-06-18', capabilities: {} });
    expect(answer).toMatchObject({ error: { code: -32602, message: expect.stringContaining('params.clientInfo') } });
  });

  test("another server's session", async () => {
    const wire = await opened();
    const other = client('clock');
    other.session = wire.session;
    expect(await refusal(await other.post(list))).toEqual([404, -32001, 'session_not_found', 7]);
  });

  test.each([
    ['2025-11-25', 200],
    ['2025-06-18', 200],
    ['2025-03-26', 200],
    ['2024-11-05', 200],
    ['1999-01-01', 400],
  ])('MCP-Protocol-Version %s is %i', async (version, status) => {
    const response = await (await opened()).post(list, { 'mcp-protocol-version': version });
    expect(response.status).toBe(status);
    if (status === 400) {
      expect(await response.json()).toMatchObject({
        id: 7,
        error: { data: { code: 'unsupported_protocol_version', requested: version, supported: expect.any(Array) } },
      });
    }
  });

  test.each([
    ['server/discover', { jsonrpc: '2.0', id: 1, method: 'server/discover' }, {}],
    ['a request under the version header of the stateless era', list, { 'mcp-protocol-version': '2026-07-28' }],
  ])('%s without an envelope is told what it lacks', async (_, message, headers) => {
    const wire = await opened();
    const response = await wire.post(JSON.stringify(message), headers as Record<string, string>);
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { id: message.id, error: { code: -32602, data: { code: 'envelope_invalid' } } },
    ]);
  });
});

describe('a session', () => {
  test('has an id of visible ASCII, answers, ends, and is gone', async () => {
    const wire = client();
    const response = await wire.initialize();
    expect(response.status).toBe(200);
    expect(wire.session).toMatch(/^[\x21-\x7e]+$/);
    expect((await wire.post({ jsonrpc: '2.0', method: 'notifications/initialized' })).status).toBe(202);
    expect(await wire.call('ping')).toEqual({ jsonrpc: '2.0', id: 1, result: {} });
    expect((await wire.request('DELETE')).status).toBe(204);
    for (const again of [() => wire.post(list), () => wire.get(), () => wire.request('DELETE')]) {
      expect((await again()).status).toBe(404);
    }
  });

  test('ends its stream when it ends', async () => {
    const wire = await opened();
    const stream = await wire.get();
    await wire.request('DELETE');
    expect(await stream.text()).toMatch(/^: connected\n\nid: s\.[\w-]+\.0\nretry: 3000\ndata: \n\n$/);
  });

  test('a GET that does not accept event streams', async () => {
    expect((await (await opened()).get({ accept: 'application/json' })).status).toBe(406);
  });

  test('a page of this host sees that its session has ended', async () => {
    const wire = await opened();
    await wire.request('DELETE');
    const response = await wire.get({ origin: 'http://localhost:6274' });
    expect([response.status, response.headers.get('access-control-allow-origin')]).toEqual([
      404,
      'http://localhost:6274',
    ]);
  });

  test('other methods', async () => {
    const response = await client().request('PUT', { body: '{}' });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('POST, GET, DELETE, OPTIONS');
  });
});

describe('around the endpoint', () => {
  const raw = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
    new Promise<{ status: number | undefined; headers: Record<string, unknown>; body: string }>((resolve, reject) => {
      // fetch does not let a test set Host.
      const request = httpRequest(`${edge.url}${path}`, { method, headers }, (response) => {
        let body = '';
        response.on('data', (chunk) => {
          body += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
      });
      request.once('error', reject);
      request.end();
    });

  test('health is public', async () => {
    const { status, body } = await raw('/healthz', { host: 'mcp.example.com' });
    expect([status, body]).toEqual([200, '{"ok":true}']);
  });

  test('the root lists the URLs of the servers', async () => {
    const { body } = await raw('/');
    expect(JSON.parse(body)).toEqual({
      servers: ['clock', 'time'].map((name) => ({ name, url: `${edge.url}/${name}/mcp` })),
    });
  });

  test.each(['/', '/time/mcp'])('%s is not for callers of another host', async (path) => {
    const { status, body } = await raw(path, { host: 'rebound.example' });
    expect(status).toBe(403);
    expect(body).toContain('forbidden_origin');
  });

  test('a path that leads nowhere tells the one that might', async () => {
    const { status, body } = await raw('/time');
    expect(status).toBe(404);
    expect(body).toContain('/time/mcp');
  });

  test('a page of this host may use a session across ports', async () => {
    const origin = 'http://localhost:6274';
    const preflight = await raw('/time/mcp', { origin, 'access-control-request-method': 'POST' }, 'OPTIONS');
    expect(preflight.status).toBe(204);
    expect(preflight.headers).toMatchObject({
      'access-control-allow-origin': origin,
      'access-control-allow-headers': expect.stringContaining('mcp-session-id'),
    });
    const { headers } = await raw('/time/mcp', { origin });
    expect(headers).toMatchObject({
      'access-control-allow-origin': origin,
      'access-control-expose-headers': 'Mcp-Session-Id, WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy',
      vary: 'origin',
    });
  });
});
