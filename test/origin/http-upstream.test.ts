/** Servers that are reached over HTTP: Streamable HTTP, HTTP+SSE, and what happens when they are away or misbehave. */
import { spawn } from 'node:child_process';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createSocket } from 'node:net';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { type Direct, serveDirect } from '../conformance/direct.ts';
import { initialize, modern, type OriginUnderTest, request, startOrigin, textOf, until } from '../support/origin.ts';

const opened: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

async function originFor(entry: object): Promise<OriginUnderTest> {
  const origin = await startOrigin({ far: entry });
  opened.push(() => origin.close());
  return origin;
}
async function direct(options = {}): Promise<Direct> {
  const server = await serveDirect(options);
  opened.push(() => server.close());
  return server;
}
/** A server that answers each POST as told. */
async function scripted(
  answer: (message: JsonRpcRequest, response: ServerResponse) => void,
): Promise<{ url: string; server: Server; seen: { method: string | undefined; headers: object; rpc: string }[] }> {
  const seen: { method: string | undefined; headers: object; rpc: string }[] = [];
  const server = createServer(async (incoming, outgoing) => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const message = (text === '' ? {} : JSON.parse(text)) as JsonRpcRequest;
    seen.push({ method: incoming.method, headers: incoming.headers, rpc: message.method });
    if (incoming.method === 'GET') outgoing.writeHead(405).end();
    else if (incoming.method === 'DELETE') outgoing.writeHead(204).end();
    else if (message.id === undefined) outgoing.writeHead(202).end();
    else answer(message, outgoing);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  opened.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`, server, seen };
}
const json = (response: ServerResponse, body: object, headers = {}) =>
  response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
const initialized = (message: JsonRpcRequest) => ({
  jsonrpc: '2.0',
  id: message.id,
  result: { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 's', version: '1' } },
});
const at = { session: 's', server: 'far' };

describe('Streamable HTTP', () => {
  test('a session as with a process: tools, progress on the call, a question and its answer, list changes unasked', async () => {
    const { url } = await direct({ legacyOnly: true });
    const origin = await originFor({ url });
    const opening = await origin.ask(initialize({ sampling: {} }), at);
    expect(opening).toMatchObject({ id: 'init', result: { serverInfo: { name: 'moorage-conformance-fixture' } } });
    await origin.ask({ jsonrpc: '2.0', method: 'notifications/initialized' }, at);
    expect(textOf(await origin.ask(request(1, 'tools/call', { name: 'echo', arguments: { message: 'é' } }), at))).toBe(
      'Echo: é',
    );

    const meta = { progressToken: 'tok' };
    const progress = await origin.post(
      request(2, 'tools/call', { name: 'test_tool_with_progress', arguments: {}, _meta: meta }),
      at,
    );
    await progress.done;
    expect(progress.messages.slice(0, 3)).toMatchObject(
      [0, 50, 100].map((n) => ({ params: { progressToken: 'tok', progress: n } })),
    );

    const asking = await origin.post(
      request(3, 'tools/call', { name: 'test_sampling', arguments: { prompt: 'x' } }),
      at,
    );
    await until(() => asking.messages.length > 0);
    const question = asking.messages[0] as JsonRpcRequest;
    expect(question.method).toBe('sampling/createMessage');
    const content = { type: 'text', text: 'hello' };
    await origin.ask({ jsonrpc: '2.0', id: question.id, result: { role: 'assistant', content, model: 'm' } }, at);
    expect(textOf(await asking.done)).toBe('LLM response: hello');

    await until(() => {
      const asked = origin.ask(request('c', 'tools/call', { name: 'test_trigger_tool_change', arguments: {} }), at);
      // The last of these are under way when the test ends.
      asked.catch(() => undefined);
      return origin.unasked.length > 0;
    });
    expect(origin.unasked[0]).toMatchObject({
      sessions: ['s'],
      message: { method: 'notifications/tools/list_changed' },
    });
  });

  test('clients that nobody can ask share one session at the server; the last words on the wire end it', async () => {
    const upstream = await scripted((message, response) =>
      json(
        response,
        message.method === 'initialize' ? initialized(message) : { jsonrpc: '2.0', id: message.id, result: {} },
        { 'mcp-session-id': 'up' },
      ),
    );
    const origin = await originFor({
      url: upstream.url,
      headers: { Authorization: 'Bearer planted-secret-hush', 'X-Key': 'k' },
    });
    await origin.ask(initialize(), at);
    await origin.ask(initialize(), { ...at, session: 't' });
    await origin.ask(request(1, 'ping'), { ...at, session: 't' });
    expect(upstream.seen.filter(({ rpc }) => rpc === 'initialize')).toHaveLength(1);
    const ping = upstream.seen.find(({ rpc }) => rpc === 'ping');
    expect(ping?.headers).toMatchObject({
      authorization: 'Bearer planted-secret-hush',
      'x-key': 'k',
      'mcp-session-id': 'up',
      'mcp-protocol-version': '2025-11-25',
    });
    await origin.parts.close();
    expect(upstream.seen.at(-1)?.method).toBe('DELETE');
    expect(origin.logged.join('\n')).not.toContain('hush');
  });

  test('a session that the server lost is `session_unknown`, and opening it again works', async () => {
    let lost = false;
    const upstream = await scripted((message, response) => {
      if (message.method === 'initialize') json(response, initialized(message), { 'mcp-session-id': lost ? 'b' : 'a' });
      else if (lost) response.writeHead(404).end('Session not found');
      else json(response, { jsonrpc: '2.0', id: message.id, result: { content: [] } });
    });
    const origin = await originFor({ url: upstream.url });
    await origin.ask(initialize(), at);
    expect(await origin.ask(request(1, 'tools/call'), at)).toMatchObject({ result: { content: [] } });
    lost = true;
    await expect(origin.ask(request(2, 'tools/call'), at)).rejects.toMatchObject({
      error: { code: 'session_unknown' },
    });
    await expect(origin.ask(request(3, 'tools/call'), at)).rejects.toMatchObject({
      error: { code: 'session_unknown' },
    });
    expect((await origin.post(initialize(), { ...at, replay: true })).status).toBe(200);
  });

  test('a lane whose session the server lost gets another one and loses nothing', async () => {
    let session = 0;
    let lost = false;
    const upstream = await scripted((message, response) => {
      if (message.method === 'server/discover') response.writeHead(404).end();
      else if (message.method === 'initialize')
        json(response, initialized(message), { 'mcp-session-id': `s${++session}` });
      else if (lost) {
        lost = false;
        response.writeHead(404).end('Session not found');
      } else
        json(response, {
          jsonrpc: '2.0',
          id: message.id,
          result: { content: [{ type: 'text', text: `s${session}` }] },
        });
    });
    const origin = await originFor({ url: upstream.url });
    const lane = { ...at, modern: true };
    expect(textOf(await origin.ask(modern(1, 'tools/call', { name: 'x' }), lane))).toBe('s1');
    lost = true;
    expect(textOf(await origin.ask(modern(2, 'prompts/get', { name: 'x' }), lane))).toBe('s2');
    expect(textOf(await origin.ask(modern(3, 'tools/call', { name: 'x' }), lane))).toBe('s2');
  });

  test('a stream that breaks in the middle of a call is an unknown outcome, and the session goes on', async () => {
    const upstream = await scripted((message, response) => {
      if (message.method === 'initialize') return json(response, initialized(message));
      if (message.method === 'ping') return json(response, { jsonrpc: '2.0', id: message.id, result: {} });
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': hello\n\n');
      setTimeout(() => response.destroy(), 50);
    });
    const origin = await originFor({ url: upstream.url });
    await origin.ask(initialize(), at);
    expect(await origin.ask(request(1, 'tools/call'), at)).toMatchObject({
      error: { data: { code: 'outcome_unknown', retryable: false } },
    });
    expect(await origin.ask(request(2, 'ping'), at)).toMatchObject({ result: {} });
  });

  test('a redirect within the origin is followed, one that leaves it is not: headers may be credentials', async () => {
    const target = await scripted((message, response) => json(response, initialized(message)));
    const upstream = await scripted((_message, response) => response.writeHead(307, { location: target.url }).end());
    const origin = await originFor({ url: upstream.url, transport: 'http' });
    expect(await origin.ask(initialize(), at)).toMatchObject({
      error: { data: { code: 'server_failed', status: 307 } },
    });
    expect(target.seen).toEqual([]);
  });
});

describe('HTTP+SSE of 2024-11-05', () => {
  let url = '';
  const port = 20_000 + (process.pid % 20_000);
  const script = new URL('../../node_modules/@modelcontextprotocol/server-everything/dist/index.js', import.meta.url)
    .pathname;
  const child = spawn(process.execPath, [script, 'sse'], {
    env: { ...process.env, PORT: String(port) },
    stdio: 'pipe',
  });
  const listening = new Promise<void>((resolve) => {
    child.stderr.on('data', (chunk: Buffer) => {
      if (/running on port/i.test(chunk.toString())) resolve();
    });
  });
  url = `http://127.0.0.1:${port}/sse`;
  afterAll(() => void child.kill());

  test.each([
    ['found by itself', {}],
    ['named', { type: 'sse' }],
  ])('%s: a call is answered', async (_how, entry) => {
    await listening;
    const origin = await originFor({ url, ...entry });
    expect(await origin.ask(initialize({}, '2025-06-18'), at)).toMatchObject({
      result: { serverInfo: { name: expect.any(String) } },
    });
    await origin.ask({ jsonrpc: '2.0', method: 'notifications/initialized' }, at);
    expect(textOf(await origin.ask(request(1, 'tools/call', { name: 'echo', arguments: { message: 'm' } }), at))).toBe(
      'Echo: m',
    );
  });
});

describe('a server that is away or hostile', () => {
  test('nothing listens: the caller is told what to check, and no verdict is kept', async () => {
    const origin = await originFor({
      url: 'http://127.0.0.1:9/mcp',
      headers: { Authorization: 'Bearer planted-secret-hush' },
    });
    const answer = await origin.ask(initialize(), at);
    expect(answer).toMatchObject({ error: { data: { code: 'server_failed', cause: 'ECONNREFUSED' } } });
    expect(JSON.stringify(answer)).not.toContain('hush');
  });

  test('it refuses the credentials', async () => {
    const upstream = await scripted((_message, response) => response.writeHead(401).end('go away'));
    const origin = await originFor({ url: upstream.url });
    expect(await origin.ask(initialize(), at)).toMatchObject({
      error: { data: { code: 'server_failed', status: 401 }, message: expect.stringContaining('headers') },
    });
  });

  test.each<[string, (response: ServerResponse) => void]>([
    ['a JSON body without end', (r) => flood(r.writeHead(200, { 'content-type': 'application/json' }), '"x')],
    ['an event without end', (r) => flood(r.writeHead(200, { 'content-type': 'text/event-stream' }), 'data: x')],
    ['comments without end in one line', (r) => flood(r.writeHead(200, { 'content-type': 'text/event-stream' }), ':')],
    ['a header without end', (r) => void r.socket?.write(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(200_000)}`)],
    ['no HTTP', (r) => void r.socket?.end('garbage\r\n\r\n')],
    [
      'invalid UTF-8 in JSON',
      (r) => void r.writeHead(200, { 'content-type': 'application/json' }).end(Buffer.from([0xff, 0xfe])),
    ],
    [
      'nesting without end',
      (r) =>
        void r
          .writeHead(200, { 'content-type': 'application/json' })
          .end(`{"jsonrpc":"2.0","id":2,"result":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_001)}`),
    ],
    ['another content type', (r) => void r.writeHead(200, { 'content-type': 'text/html' }).end('<p>')],
  ])('%s fails the call in bounded memory, and the session lives on', async (_what, hostile) => {
    const upstream = await scripted((message, response) => {
      if (message.method === 'initialize') json(response, initialized(message));
      else if (message.method === 'ping') json(response, { jsonrpc: '2.0', id: message.id, result: {} });
      else hostile(response);
    });
    const origin = await originFor({ url: upstream.url });
    await origin.ask(initialize(), at);
    const before = process.memoryUsage().rss;
    expect(await origin.ask(request(2, 'tools/call'), at)).toMatchObject({
      error: { data: { code: expect.stringMatching(/outcome_unknown|server_failed/) } },
    });
    expect(process.memoryUsage().rss - before).toBeLessThan(512 << 20);
    expect(await origin.ask(request(3, 'ping'), at)).toMatchObject({ id: 3, result: {} });
  });

  test('it takes connections and says nothing: others are served meanwhile, and ending the session ends the wait', async () => {
    const connected = Promise.withResolvers<void>();
    const silent = createSocket(() => connected.resolve());
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    opened.push(() => silent.close());
    const origin = await originFor({ url: `http://127.0.0.1:${(silent.address() as AddressInfo).port}/` });
    const waiting = origin.ask(initialize(), at);
    waiting.catch(() => undefined);
    await connected.promise;
    await origin.parts.close();
    expect(await waiting).toMatchObject({ error: { data: { code: 'server_failed' } } });
  });
});

function flood(response: ServerResponse, start: string): void {
  response.write(start);
  const block = 'x'.repeat(1 << 20);
  const more = () => {
    while (!response.destroyed && response.write(block));
    if (!response.destroyed) response.once('drain', more);
  };
  response.on('error', () => undefined);
  more();
}
