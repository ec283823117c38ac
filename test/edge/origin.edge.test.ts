/** The edge with an origin behind it: what is carried, what is repeated, and what a client is told when things break. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
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

const opened = async () => {
  const wire = new WireClient(() => edge.url, 'notes');
  await wire.initialize();
  return wire;
};
const methods = () =>
  edge.origin.arrived.map(
    ({ message, replay }) => `${'method' in message ? message.method : 'response'}${replay ? '*' : ''}`,
  );
const callTool = { jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name: 'x' } } as const;
const stream: Record<string, string> = { 'content-type': 'text/event-stream' };
/** A handler for requests after initialize; initialize itself is answered plainly. */
const once = (handler: Handler): Handler => {
  let used = false;
  return (arrived, response) => {
    if (used || ('method' in arrived.message && arrived.message.method === 'initialize'))
      return plain(arrived, response);
    used = true;
    return handler(arrived, response);
  };
};

describe('carrying', () => {
  test('every message comes with a grant for this session, and with nothing of the client', async () => {
    const wire = await opened();
    await wire.post(callTool, { authorization: 'Bearer of the client', cookie: 'a=b', 'x-custom': 'c' });
    const { grant, headers } = edge.origin.arrived[1] ?? expect.fail('nothing arrived');
    expect(grant).toEqual({
      origin: 'local',
      principal: 'anonymous',
      server: 'notes',
      machine: 'notes',
      session: wire.session,
    });
    expect(JSON.stringify(headers)).not.toMatch(/of the client|a=b|x-custom/);
  });

  test('a JSON answer', async () => {
    expect(await (await opened()).call('tools/list')).toEqual({
      jsonrpc: '2.0',
      id: 1,
      result: { echo: 'tools/list' },
    });
  });

  test.each(['JSON', 'an event stream'])('10 MB each way, answered as %s', async (form) => {
    edge.origin.handler = once(({ message }, response) => {
      const { text } = (message as typeof callTool & { params: { text: string } }).params;
      if (form === 'JSON') return json(response, result(message, { text }));
      response.writeHead(200, stream).end(event(result(message, { text })));
    });
    const wire = await opened();
    const text = 'ä'.repeat(5 * 1024 * 1024);
    const response = await wire.post({ ...callTool, params: { text } });
    const answer = form === 'JSON' ? await response.json() : await new EventReader(response).message();
    expect((answer as { result: { text: string } }).result.text === text).toBe(true);
  });

  test('notifications and responses are taken with 202', async () => {
    const wire = await opened();
    const cancelled = { jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 1 } } as const;
    for (const message of [cancelled, { jsonrpc: '2.0', id: 's1', result: {} } as const]) {
      const response = await wire.post(message);
      expect([response.status, await response.text()]).toEqual([202, '']);
    }
    expect(methods()).toEqual(['initialize', 'notifications/cancelled', 'response']);
  });

  test('an event stream passes byte for byte, as it comes', async () => {
    const progress = event({ jsonrpc: '2.0', method: 'notifications/progress', params: { progress: 1 } });
    const gate = Promise.withResolvers<void>();
    edge.origin.handler = once(async ({ message }, response) => {
      response.writeHead(200, { ...stream, 'x-of-the-origin': '1' });
      response.write(`: keep-alive\n\nid: 7\n${progress}`);
      await gate.promise;
      response.end(event(result(message)));
    });
    const response = await (await opened()).post(callTool);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    expect(response.headers.has('x-of-the-origin')).toBe(false);
    const reader = new EventReader(response);
    expect(await reader.block()).toBe(': keep-alive');
    expect(await reader.block()).toBe(`id: 7\n${progress.trimEnd()}`);
    gate.resolve();
    expect(await reader.message()).toMatchObject({ id: 9, result: {} });
    expect(await reader.block()).toBeNull();
  });

  test('initialize as an event stream opens the session too', async () => {
    edge.origin.handler = ({ message }, response) => {
      response.writeHead(200, stream);
      response.end(event(result(message, { protocolVersion: '2025-06-18', capabilities: {}, serverInfo: {} })));
    };
    const wire = new WireClient(() => edge.url, 'notes');
    const reader = new EventReader(await wire.initialize());
    expect(await reader.message()).toMatchObject({ result: { protocolVersion: '2025-06-18' } });
    edge.origin.handler = plain;
    expect(await wire.call('ping')).toMatchObject({ result: {} });
  });

  test.each([
    [
      'JSON',
      (body: unknown): Handler =>
        (_, response) =>
          json(response, body),
    ],
    [
      'an event stream',
      (body: unknown): Handler =>
        (_, response) =>
          void response.writeHead(200, stream).end(event(body)),
    ],
  ])('an initialize that fails as %s leaves no session', async (_, answer) => {
    edge.origin.handler = answer({ jsonrpc: '2.0', id: 'init', error: { code: -32602, message: 'no' } });
    const wire = new WireClient(() => edge.url, 'notes');
    const response = await wire.initialize();
    expect(await response.text()).toContain('"message":"no"');
    if (!wire.session) return;
    edge.origin.handler = plain;
    expect((await wire.post(callTool)).status).toBe(404);
  });

  test('the end of a session is told to the origin', async () => {
    const wire = await opened();
    const told = edge.origin.ended.length;
    await wire.request('DELETE');
    await expect.poll(() => edge.origin.ended.length).toBe(told + 1);
    expect(edge.origin.ended.at(-1)).toMatchObject({ session: wire.session, server: 'notes' });
  });
});

describe('an origin that lost the session', () => {
  test('gets the initialize again, what the session had set, and the message once more', async () => {
    const wire = await opened();
    await wire.call('logging/setLevel', { level: 'debug' });
    await wire.call('resources/subscribe', { uri: 'note:1' });
    edge.origin.arrived.length = 0;
    edge.origin.handler = once((_, response) => refuse(response, 409, 'session_unknown'));
    expect(await wire.call('tools/call')).toMatchObject({ id: 1, result: { echo: 'tools/call' } });
    expect(methods()).toEqual(['tools/call', 'initialize*', 'tools/call']);
    expect(edge.origin.arrived[1]?.also).toMatchObject([
      { method: 'logging/setLevel', params: { level: 'debug' } },
      { method: 'resources/subscribe', params: { uri: 'note:1' } },
    ]);
    expect(edge.origin.arrived[1]?.message).toMatchObject({ params: { clientInfo: { name: 'wire', version: '1' } } });
  });

  test('that loses it for ever is not asked for ever', async () => {
    const wire = await opened();
    edge.origin.handler = (arrived, response) =>
      arrived.replay ? plain(arrived, response) : refuse(response, 409, 'session_unknown');
    expect(await wire.call('tools/call')).toMatchObject({ error: { data: { code: 'server_failed' } } });
  });

  test('is not woken for a notification', async () => {
    const wire = await opened();
    edge.origin.arrived.length = 0;
    edge.origin.handler = (_, response) => refuse(response, 409, 'session_unknown');
    expect((await wire.post({ jsonrpc: '2.0', method: 'notifications/cancelled' })).status).toBe(202);
    expect(methods()).toEqual(['notifications/cancelled']);
  });

  test('where a server moved to another machine, the Directory is asked anew', async () => {
    const wire = await opened();
    link.send({
      type: 'hello',
      version: 1,
      epoch: 'epoch-0001',
      agent: 'scripted',
      servers: ['notes', 'wiki'].map((name) => ({ name, runtime: 'process', machine: 'shared', deployment: 'd2' })),
    });
    expect(await link.next()).toMatchObject({ type: 'welcome' });
    edge.origin.handler = once((_, response) => refuse(response, 409, 'route_stale'));
    expect(await wire.call('tools/call')).toMatchObject({ result: {} });
    expect(edge.origin.arrived.slice(1).map(({ grant }) => grant.machine)).toEqual(['notes', 'shared']);
  });
});

describe('what an origin reports', () => {
  test.each([
    ['overloaded', 503, 'overloaded'],
    ['machine_failed', 503, 'machine_failed'],
    // An origin does not get to say these: a client would drop its session, or start to log in.
    ['session_not_found', 404, 'internal'],
    ['authentication_required', 401, 'internal'],
    ['grant_invalid', 401, 'internal'],
  ] as const)('%s reaches the client in band as %s', async (code, status, seen) => {
    const wire = await opened();
    edge.origin.handler = (_, response) => refuse(response, status, code);
    const response = await wire.post(callTool);
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ id: 9, error: { data: { code: seen } } });
  });

  test.each([
    [502, 'tools/call', 'outcome_unknown'],
    [502, 'tools/list', 'origin_away'],
    // Cloudflare's own: no connector of the tunnel is there, so nothing arrived.
    [530, 'tools/call', 'origin_away'],
  ])('a tunnel that answers %i to %s means %s', async (status, method, code) => {
    const wire = await opened();
    edge.origin.handler = (_, response) => void response.writeHead(status, { 'content-type': 'text/html' }).end('<p>');
    expect(await wire.call(method)).toMatchObject({ error: { data: { code } } });
  });
});

describe('an exchange that breaks', () => {
  const breaking: [string, Handler][] = [
    ['before the headers', (_, response) => void response.socket?.destroy()],
    [
      'within JSON',
      (_, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.write('{"jsonrpc":', () => response.socket?.destroy());
      },
    ],
  ];

  test.each(breaking)('%s: the outcome of a call is unknown', async (_, handler) => {
    const wire = await opened();
    edge.origin.handler = handler;
    const response = await wire.post(callTool);
    expect([response.status, await response.json()]).toMatchObject([
      200,
      { id: 9, error: { data: { code: 'outcome_unknown' } } },
    ]);
  });

  test.each(breaking)('%s: what changes nothing can simply be tried again', async (_, handler) => {
    const wire = await opened();
    edge.origin.handler = handler;
    expect(await wire.call('resources/read')).toMatchObject({
      error: { data: { code: 'origin_away', origin: 'local' } },
    });
  });

  test.each([
    ['in the middle of an event', 'data: {"jsonrpc":"2.0","id":9,"res'],
    ['between events', event({ jsonrpc: '2.0', method: 'notifications/progress' })],
  ])('a stream, %s: the client gets whole events, then the error for its request', async (_, text) => {
    const wire = await opened();
    edge.origin.handler = (_arrived, response) => {
      response.writeHead(200, stream);
      response.write(`: hi\n\n${text}`, () => response.socket?.destroy());
    };
    const reader = new EventReader(await wire.post(callTool));
    let last: Record<string, unknown> | null = null;
    for (let message = await reader.message(); message; message = await reader.message()) last = message;
    expect(last).toMatchObject({ id: 9, error: { data: { code: 'outcome_unknown' } } });
  });

  test('a stream that ends in peace without the response is completed too', async () => {
    const wire = await opened();
    edge.origin.handler = (_, response) => void response.writeHead(200, stream).end(': hi\n\n');
    expect(await (await wire.post(callTool)).text()).toContain('outcome_unknown');
  });

  test('a stream that broke after the response is left as it is', async () => {
    const wire = await opened();
    edge.origin.handler = ({ message }, response) => {
      response.writeHead(200, stream);
      response.write(event(result(message)), () => response.socket?.destroy());
    };
    expect(await (await wire.post(callTool)).text()).toBe(event(result(callTool)));
  });
});

describe('an origin that is away', () => {
  test('a call that never left is told so, with the time the origin was last seen; the session goes on when it is back', async () => {
    const wire = await opened();
    await edge.origin.close();
    const answer = await wire.call('tools/call');
    expect(answer).toMatchObject({
      error: { data: { code: 'origin_away', lastSeen: expect.stringMatching(/^\d{4}-.*Z$/) } },
    });
    expect(JSON.stringify(answer)).toContain('It was last seen 20');
    await edge.origin.listen();
    expect(await wire.call('tools/call')).toMatchObject({ result: { echo: 'tools/call' } });
  });

  test('initialize fails in band and leaves no session; the server stays known', async () => {
    await edge.origin.close();
    const wire = new WireClient(() => edge.url, 'wiki');
    const response = await wire.initialize();
    expect([response.status, await response.json()]).toMatchObject([
      200,
      { id: 'init', error: { data: { code: 'origin_away' } } },
    ]);
    expect(wire.session).toBeUndefined();
    await edge.origin.listen();
  });
});
