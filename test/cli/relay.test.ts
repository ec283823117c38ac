/** What passes between a stdio client and a router, message by message, and what becomes of it when the router fails. */
import type { ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Relay } from '../../cli/stdio/relay.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { event, ScriptedRouter } from './scripted-router.ts';

const PARAMS = {
  protocolVersion: '2025-11-25',
  capabilities: { future: { x: 1 } },
  clientInfo: { name: 'c', version: '1' },
};
const STREAM = { 'content-type': 'text/event-stream' };
const MODERN = { _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28' } };

let router: ScriptedRouter;
let relay: Relay;
let received: JsonRpcMessage[];
let base: () => Promise<string>;

beforeEach(async () => {
  router = new ScriptedRouter();
  await router.listen();
  received = [];
  base = () => Promise.resolve(router.url);
  relay = new Relay({
    server: 'notes',
    locate: () => base(),
    headers: { authorization: 'Bearer t' },
    toClient: (message) => received.push(message),
    log: () => {},
  });
});
afterEach(async () => {
  await relay.end();
  router.close();
});

const send = (message: object) => relay.receive({ jsonrpc: '2.0', ...message } as JsonRpcMessage);
const answerTo = (id: string | number) =>
  vi.waitFor(
    () => {
      const found = received.find((message) => !('method' in message) && message.id === id);
      if (!found) throw new Error(`no answer to ${id} in ${JSON.stringify(received)}`);
      return found;
    },
    { timeout: 30_000 },
  );

/** The router ends, and the client's idle connections with it. */
async function leave() {
  router.close();
  await delay(100);
}

/** A session as every client opens one. */
async function open() {
  send({ id: 'init', method: 'initialize', params: PARAMS });
  send({ method: 'notifications/initialized' });
  await answerTo('init');
  await expect.poll(() => router.streams.size).toBe(1);
}

describe('every message crosses', () => {
  test('requests in order behind initialize, with session, revision and token; unknown ones and capabilities too', async () => {
    send({ id: 'init', method: 'initialize', params: PARAMS });
    send({ method: 'notifications/initialized' });
    send({ id: 2, method: 'future/thing', params: { _meta: { traceparent: 't' }, x: [1] } });
    expect(await answerTo(2)).toEqual({ jsonrpc: '2.0', id: 2, result: { echoed: 'future/thing' } });
    expect(router.methods).toEqual(['initialize', 'notifications/initialized', 'future/thing']);
    expect(router.posted[0]?.message).toMatchObject({ params: PARAMS });
    expect(router.posted[2]?.message).toMatchObject({ params: { _meta: { traceparent: 't' }, x: [1] } });
    expect(router.posted[2]?.headers).toMatchObject({
      'mcp-session-id': 's1',
      'mcp-protocol-version': '2025-11-25',
      authorization: 'Bearer t',
    });
  });

  test('what the server says: on the stream of a call, on the stream of the session, questions and their answers', async () => {
    await open();
    router.answer = ({ id }, response) => {
      response.writeHead(200, STREAM);
      response.write(event({ method: 'notifications/progress', params: { progressToken: 1, progress: 1 } }));
      response.end(event({ id, result: { done: true } }));
    };
    send({ id: 1, method: 'tools/call', params: { name: 'x' } });
    await answerTo(1);
    router.streams.get('s1')?.write(event({ id: 'q', method: 'future/question', params: {} }));
    await expect.poll(() => received.at(-1)).toMatchObject({ id: 'q', method: 'future/question' });
    send({ id: 'q', result: { said: 'yes' } });
    await expect.poll(() => router.posted.at(-1)?.message).toMatchObject({ id: 'q', result: { said: 'yes' } });
    expect(received.map((message) => ('method' in message ? message.method : message.id))).toEqual([
      'init',
      'notifications/progress',
      1,
      'future/question',
    ]);
  });

  test('a call does not wait for another; cancellation crosses, and nothing is answered for it', async () => {
    await open();
    router.answer = (request, response) => {
      if (request.id === 'slow') response.writeHead(200, STREAM).flushHeaders();
      else router.result(request, response, {});
    };
    send({ id: 'slow', method: 'tools/call', params: {} });
    send({ id: 'fast', method: 'tools/call', params: {} });
    await answerTo('fast');
    send({ method: 'notifications/cancelled', params: { requestId: 'slow' } });
    await expect.poll(() => router.methods.at(-1)).toBe('notifications/cancelled');
    expect(received.some((message) => 'id' in message && message.id === 'slow')).toBe(false);
  });

  test('the session is ended with the client', async () => {
    await open();
    await relay.end();
    expect(router.ended).toEqual(['s1']);
  });

  test('an error of the router arrives as the router said it', async () => {
    await open();
    const error = { code: -32099, message: 'own words', data: { code: 'x', more: [1] } };
    router.answer = ({ id }, response) =>
      response
        .writeHead(400, { 'content-type': 'application/json' })
        .end(JSON.stringify({ jsonrpc: '2.0', id, error }));
    send({ id: 1, method: 'x' });
    expect(await answerTo(1)).toEqual({ jsonrpc: '2.0', id: 1, error });
  });
});

describe('the era without sessions', () => {
  test('is carried outside of any, with its headers; a cancellation ends the exchange', async () => {
    const gone = Promise.withResolvers<void>();
    router.answer = (request, response) => {
      if (request.method !== 'subscriptions/listen') return router.result(request, response, { ok: true });
      response.writeHead(200, STREAM).flushHeaders();
      response.once('close', () => gone.resolve());
    };
    send({ id: 0, method: 'server/discover', params: MODERN });
    await answerTo(0);
    send({ id: 1, method: 'tools/call', params: { ...MODERN, name: 'tool' } });
    await answerTo(1);
    expect(router.posted[1]?.headers).toMatchObject({
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': 'tools/call',
      'mcp-name': 'tool',
    });
    expect(router.posted[1]?.headers['mcp-session-id']).toBeUndefined();
    send({ id: 2, method: 'subscriptions/listen', params: MODERN });
    await expect.poll(() => router.methods).toContain('subscriptions/listen');
    send({ method: 'notifications/cancelled', params: { requestId: 2 } });
    await gone.promise;
    expect(router.methods).not.toContain('notifications/cancelled');
  });

  test('arguments that a tool wants in headers are put there, as its schema was listed', async () => {
    const text = { type: 'string', 'x-mcp-header': 'Region' };
    const place = { type: 'object', properties: { size: { type: 'integer', 'x-mcp-header': 'Size' } } };
    const inputSchema = { type: 'object', properties: { text, place, other: { type: 'string' } } };
    router.answer = ({ id, method }, response) =>
      router.result({ id, method, jsonrpc: '2.0' }, response, { tools: [{ name: 'tool', inputSchema }] });
    send({ id: 1, method: 'tools/list', params: MODERN });
    await answerTo(1);
    const call = { ...MODERN, name: 'tool', arguments: { text: 'München', place: { size: 3 }, other: 'x' } };
    send({ id: 2, method: 'tools/call', params: call });
    await answerTo(2);
    const { headers } = router.posted.at(-1) ?? { headers: {} };
    expect(Object.entries(headers).filter(([name]) => name.startsWith('mcp-param-'))).toEqual([
      ['mcp-param-region', '=?base64?TcO8bmNoZW4=?='],
      ['mcp-param-size', '3'],
    ]);
  });

  test('a router that does not serve it says so in the answer to the probe', async () => {
    const error = { code: -32022, message: 'not served', data: { supported: [] } };
    router.answer = ({ id }, response) =>
      response
        .writeHead(400, { 'content-type': 'application/json' })
        .end(JSON.stringify({ jsonrpc: '2.0', id, error }));
    send({ id: 0, method: 'server/discover', params: MODERN });
    expect(await answerTo(0)).toMatchObject({ error });
    await open();
  });
});

describe('a session that is gone', () => {
  test('is opened again with the client’s own words; the request is sent once more, the client sees nothing', async () => {
    await open();
    send({ id: 1, method: 'logging/setLevel', params: { level: 'debug' } });
    for (const [id, uri] of [
      [2, 'a:'],
      [3, 'b:'],
    ] as const) {
      send({ id, method: 'resources/subscribe', params: { uri } });
      await answerTo(id);
    }
    send({ id: 4, method: 'resources/unsubscribe', params: { uri: 'a:' } });
    await answerTo(4);
    router.posted.length = 0;
    received.length = 0;
    router.sessions.clear();
    const burst = Array.from({ length: 5 }, (_, n) => `burst ${n}`);
    for (const id of burst) send({ id, method: 'tools/call', params: {} });
    await Promise.all(burst.map(answerTo));
    expect(received).toHaveLength(5);
    expect(router.methods.slice(0, 4)).toEqual([
      'initialize',
      'notifications/initialized',
      'logging/setLevel',
      'resources/subscribe',
    ]);
    expect(router.methods.filter((method) => method === 'tools/call')).toHaveLength(5);
    expect(router.posted[0]?.message).toMatchObject({ params: PARAMS });
    expect(router.posted[3]?.message).toMatchObject({ params: { uri: 'b:' } });
    await expect.poll(() => router.streams.has('s2')).toBe(true);
  });

  test('is noticed by its stream before anything is asked; questions of it are withdrawn', async () => {
    await open();
    router.streams.get('s1')?.write(event({ id: 'q', method: 'roots/list' }));
    await expect.poll(() => received.at(-1)).toMatchObject({ id: 'q' });
    router.sessions.clear();
    router.streams.get('s1')?.end();
    await expect.poll(() => router.streams.has('s2')).toBe(true);
    expect(received.at(-1)).toMatchObject({ method: 'notifications/cancelled', params: { requestId: 'q' } });
    const posted = router.posted.length;
    send({ id: 'q', result: {} });
    send({ id: 9, method: 'x' });
    await answerTo(9);
    expect(router.methods.slice(posted)).toEqual(['x']);
  });

  test('again and again: said, not tried for ever', async () => {
    await open();
    router.refuse = () => {
      router.sessions.clear();
      return false;
    };
    send({ id: 1, method: 'x' });
    expect(await answerTo(1)).toHaveProperty('error');
  });
});

describe('a router that fails', () => {
  test('away: each request is told so within seconds; back elsewhere: the session goes on there', async () => {
    await open();
    await leave();
    send({ id: 1, method: 'tools/call', params: {} });
    expect(await answerTo(1)).toMatchObject({ error: { data: { code: 'edge_away' } } });
    const next = new ScriptedRouter();
    await next.listen();
    next.sessions.add('s1');
    router = next;
    send({ id: 2, method: 'tools/call', params: {} });
    expect(await answerTo(2)).toHaveProperty('result');
    expect(next.methods).toEqual(['tools/call']);
    expect(next.posted[0]?.headers['mcp-session-id']).toBe('s1');
    await expect.poll(() => next.streams.has('s1')).toBe(true);
  });

  test('away for a moment: the request waits', async () => {
    await open();
    const { port } = router;
    await leave();
    send({ id: 1, method: 'tools/call', params: {} });
    const next = new ScriptedRouter();
    next.sessions.add('s1');
    setTimeout(() => void next.listen(port), 500);
    expect(await answerTo(1)).toHaveProperty('result');
    router = next;
  });

  test.each([
    [
      'cut in the middle of the answer',
      (_request: JsonRpcRequest, response: ServerResponse) => {
        response.writeHead(200, STREAM).flushHeaders();
        setTimeout(() => response.socket?.destroy(), 20);
      },
    ],
    [
      'an end without an answer',
      (_request: JsonRpcRequest, response: ServerResponse) => {
        response.writeHead(200, STREAM).end(event({ method: 'notifications/message', params: {} }));
      },
    ],
    [
      'cut before the answer',
      (_request: JsonRpcRequest, response: ServerResponse) => {
        response.socket?.destroy();
      },
    ],
  ] as const)('%s: the outcome is unknown, and nothing is sent twice', async (_name, answer) => {
    await open();
    router.answer = answer;
    send({ id: 1, method: 'tools/call', params: {} });
    expect(await answerTo(1)).toMatchObject({ error: { data: { code: 'outcome_unknown' } } });
    expect(router.methods.filter((method) => method === 'tools/call')).toHaveLength(1);
  });

  test('what can be repeated without harm is to be tried again', async () => {
    await open();
    router.answer = (_request, response) => response.socket?.destroy();
    send({ id: 1, method: 'resources/templates/list', params: {} });
    expect(await answerTo(1)).toMatchObject({
      error: { message: expect.stringContaining('Try again'), data: { code: 'edge_away' } },
    });
  });

  test('a stream that can be resumed is resumed', async () => {
    await open();
    router.answer = (_request, response) => {
      response.writeHead(200, STREAM).write('id: e1\ndata:\n\n');
      setTimeout(() => response.socket?.destroy(), 20);
    };
    router.refuse = (request, response) => {
      if (request.headers['last-event-id'] !== 'e1') return false;
      response.writeHead(200, STREAM).end(event({ id: 1, result: { resumed: true } }));
      return true;
    };
    send({ id: 1, method: 'tools/call', params: {} });
    expect(await answerTo(1)).toMatchObject({ result: { resumed: true } });
  });

  test.each([
    [401, '{"error":"no"}', 'authentication_required', /MOORAGE_TOKEN/],
    [502, '<html>', 'edge_away', /HTTP 502/],
  ])('%i with %s', async (status, text, code, message) => {
    router.refuse = (_request, response) => {
      response.writeHead(status).end(text);
      return true;
    };
    send({ id: 'init', method: 'initialize', params: PARAMS });
    expect(await answerTo('init')).toMatchObject({
      error: { message: expect.stringMatching(message), data: { code } },
    });
  });

  test('no router to be found: its reason is the answer, and later ones are found', async () => {
    const found = base;
    base = () => Promise.reject(new MoorageError('edge_away', 'nobody is here'));
    send({ id: 'init', method: 'initialize', params: PARAMS });
    expect(await answerTo('init')).toMatchObject({ error: { message: 'nobody is here' } });
    base = found;
    received.length = 0;
    await open();
  });
});

test('the client is quiet when it has what it asked for', async () => {
  await open();
  const late = Promise.withResolvers<void>();
  router.answer = async (request, response) => {
    await late.promise;
    router.result(request, response, {});
  };
  send({ id: 1, method: 'x' });
  const order: string[] = [];
  const idle = relay.idle().then(() => order.push('idle'));
  await delay(50);
  order.push('waited');
  late.resolve();
  await idle;
  expect(order).toEqual(['waited', 'idle']);
});
