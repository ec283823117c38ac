/** The proxy in front of the edge, with a scripted edge behind it: what crosses, what does not, and when. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Mount, mountAt } from '../../router/mount.ts';

type Serve = (request: IncomingMessage, response: ServerResponse) => void;

const BASE = 'http://tools.example.com/base';
const echo: Serve = async (incoming, response) => {
  const body = (await incoming.toArray()).join('');
  const { method, url, headers, rawHeaders } = incoming;
  response
    .setHeader('content-type', 'application/json')
    .end(JSON.stringify({ method, url, headers, rawHeaders, body }));
};

let serve: Serve;
let edge: Server;
let front: Server;
let mount: Mount;
let wrap: Serve;

beforeAll(async () => {
  edge = createServer((req, res) => serve(req, res));
  front = createServer((req, res) => wrap(req, res));
  for (const server of [edge, front]) await once(server.listen(0, '127.0.0.1'), 'listening');
  mount = mountAt({ url: `http://127.0.0.1:${(edge.address() as AddressInfo).port}` }, new URL(BASE));
});
beforeEach(() => {
  serve = echo;
  wrap = mount.handler;
});
afterAll(() => {
  for (const server of [edge, front]) {
    server.closeAllConnections();
    server.close();
  }
});

interface Asked {
  readonly path?: string;
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
}

/** Through `handler`, as a client that names the base URL's host. */
async function ask({ path = '/base/time/mcp', method = 'POST', headers = {}, body }: Asked) {
  const { port } = front.address() as AddressInfo;
  const outgoing = request({
    host: '127.0.0.1',
    port,
    path,
    method,
    headers: { host: 'tools.example.com', ...headers },
  });
  outgoing.end(body);
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
  const text = (await answer.toArray()).join('');
  return { status: answer.statusCode, headers: answer.headers, json: JSON.parse(text) };
}

describe('what the edge sees', () => {
  test('path without the mount, query, method, body, and a Host of its own', async () => {
    const { json } = await ask({ path: '/base/time/mcp?a=1', body: '{"x":1}', headers: { 'mcp-session-id': 's' } });
    expect(json).toMatchObject({ method: 'POST', url: '/time/mcp?a=1', body: '{"x":1}' });
    expect(json.headers).toMatchObject({ 'mcp-session-id': 's', host: expect.stringMatching(/^127\.0\.0\.1:/) });
  });

  test('neither headers of one hop nor those of proxies on the way', async () => {
    const { json } = await ask({
      body: 'b',
      headers: {
        connection: 'keep-alive, x-one-hop',
        'x-one-hop': '1',
        te: 'trailers',
        'x-forwarded-for': '203.0.113.9',
        forwarded: 'for=203.0.113.9',
        'cf-connecting-ip': '203.0.113.9',
        authorization: 'Bearer kept',
      },
    });
    expect(Object.keys(json.headers).sort()).toEqual(['authorization', 'connection', 'content-length', 'host']);
  });

  test('a body without a length arrives whole, also on DELETE', async () => {
    for (const method of ['POST', 'DELETE']) {
      const { json } = await ask({ method, body: 'abc', headers: { 'transfer-encoding': 'chunked' } });
      expect(json).toMatchObject({ method, body: 'abc' });
    }
  });

  test('below a framework: the path that was asked for, and a body that its parser has read', async () => {
    wrap = async (req, res) => {
      const text = (await req.toArray()).join('');
      Object.assign(req, { originalUrl: req.url, url: '/time/mcp', body: JSON.parse(text) });
      mount.handler(req, res);
    };
    const { json } = await ask({ body: '{ "x":   1 }' });
    expect(json).toMatchObject({ url: '/time/mcp', body: '{"x":1}' });
  });
});

describe('who may come in', () => {
  test.each([
    ['a name of somebody else (DNS rebinding)', { headers: { host: 'evil.example' } }, 403],
    ['loopback by name', { headers: { host: 'localhost:3000' } }, 200],
    ['outside the mount', { path: '/time/mcp' }, 404],
    ['a path that only begins like the mount', { path: '/basement/time/mcp' }, 404],
    ['the console', { path: '/base/admin/api' }, 404],
    ['the console by a detour', { path: '/base/time/../admin/mcp' }, 404],
    ['the link of origins', { path: '/base/_origin/link' }, 404],
    ['metrics', { path: '/base/metrics' }, 404],
    ['the list with inner addresses', { path: '/base/' }, 404],
    ['the aggregate', { path: '/base/mcp' }, 200],
    ['the old transport', { path: '/base/time/messages?sessionId=1' }, 200],
    ['a copy of a server', { path: '/base/time@next/mcp' }, 200],
    ['no path at all', { path: '*', method: 'OPTIONS' }, 404],
  ] satisfies [string, Asked, number][])('%s: %o → %i', async (_name, asked, status) => {
    expect((await ask(asked)).status).toBe(status);
  });

  test('Origin: another site reaches the edge, which refuses it; a page of the own host comes as a program', async () => {
    const origin = async (value: string) => (await ask({ headers: { origin: value } })).json.headers.origin;
    expect(await origin('https://evil.example')).toBe('https://evil.example');
    expect(await origin('http://localhost:5173')).toBe('http://localhost:5173');
    expect(await origin('http://tools.example.com')).toBeUndefined();
  });
});

/** An edge that streams two events, the second when it is told to. `gone` resolves when its client is. */
function streaming() {
  const second = Promise.withResolvers<void>();
  const gone = Promise.withResolvers<void>();
  serve = async (_incoming, response) => {
    response.once('close', () => gone.resolve());
    response.writeHead(200, { 'content-type': 'text/event-stream', connection: 'x-hop', 'x-hop': '1' });
    response.write('data: 1\n\n');
    await second.promise;
    response.end('data: 2\n\n');
  };
  return { second, gone };
}
const url = () => `http://127.0.0.1:${(front.address() as AddressInfo).port}/base/time`;
const through: [string, (init: RequestInit, path?: string) => Promise<Response>][] = [
  ['handler', (init, path = '/mcp') => fetch(url() + path, init)],
  ['fetch', (init, path = '/mcp') => mount.fetch(new Request(`http://tools.example.com/base/time${path}`, init))],
];

describe.each(through)('through %s', (_name, call) => {
  test('a message crosses', async () => {
    const answer = await call({ method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } });
    expect(await answer.json()).toMatchObject({ method: 'POST', url: '/time/mcp', body: '{}' });
  });

  test('an event is there when it was sent, not when the stream ends', async () => {
    const { second } = streaming();
    const answer = await call({});
    expect([...answer.headers.keys()]).not.toContain('x-one-hop');
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    expect((await reader?.read())?.value).toBe('data: 1\n\n');
    second.resolve();
    expect((await reader?.read())?.value).toBe('data: 2\n\n');
    expect((await reader?.read())?.done).toBe(true);
  });

  test.each(['abort', 'cancel'])('a client that leaves (%s) is gone for the edge too', async (how) => {
    const { gone } = streaming();
    const controller = new AbortController();
    const answer = await call({ signal: controller.signal });
    if (how === 'abort') controller.abort();
    else await answer.body?.cancel();
    await gone.promise;
  });

  test('a client that leaves before the answer begins', async () => {
    const arrived = Promise.withResolvers<IncomingMessage>();
    serve = (incoming) => arrived.resolve(incoming);
    const controller = new AbortController();
    const answer = call({ signal: controller.signal });
    const closed = once((await arrived.promise).socket, 'close');
    controller.abort();
    await expect(answer).rejects.toThrow(/abort/i);
    await closed;
  });

  test('the old transport’s first event names its path below the mount, however it is cut', async () => {
    serve = async (_incoming, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const part of ['event: end', 'point\ndata: /time/messages?sessionId=1\n', '\ndata: /é\n\n']) {
        response.write(part);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      response.end('event: endpoint\ndata: /later\n\n');
    };
    expect(await (await call({}, '/sse')).text()).toBe(
      'event: endpoint\ndata: /base/time/messages?sessionId=1\n\ndata: /é\n\nevent: endpoint\ndata: /later\n\n',
    );
  });

  test('an edge that is away is told in JSON-RPC; one that breaks off breaks the answer off', async () => {
    serve = (incoming) => incoming.socket.destroy();
    const answer = await call({ method: 'POST', body: '{}' });
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ id: null, error: { data: { code: 'edge_away' } } });
    serve = (incoming, response) => {
      response.writeHead(200).write('half');
      setTimeout(() => incoming.socket.destroy(), 20);
    };
    await expect((await call({})).text()).rejects.toThrow();
  });

  test('an answer without a body', async () => {
    serve = (_incoming, response) => response.writeHead(204).end();
    expect((await call({ method: 'DELETE' })).status).toBe(204);
  });
});
