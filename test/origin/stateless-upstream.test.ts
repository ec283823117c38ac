/** Clients with sessions at servers of 2026-07-28 that refuse them: what the server would remember is remembered here. */

import { createMcpHandler } from '@modelcontextprotocol/server';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { JsonRpcRequest, JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { WAKE_HEADER } from '../../shared/origin-api.ts';
import { createFixture } from '../conformance/fixture.ts';
import { type Listener, listen } from '../conformance/listen.ts';
import { initialize, modern, type OriginUnderTest, request, startOrigin, textOf, until } from '../support/origin.ts';

const FIXTURE = new URL('../conformance/stdio.ts', import.meta.url).pathname;
const SCRIPT = new URL('../support/modern-server.mjs', import.meta.url).pathname;
const LEGACY = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const ABLE = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };

let origin: OriginUnderTest;
let http: Listener;
beforeAll(async () => {
  const handler = createMcpHandler(() => createFixture(), { legacy: 'reject' });
  http = await listen((incoming) => handler.fetch(incoming));
  const stdio = { runtime: 'process', command: 'node' };
  origin = await startOrigin({
    stdio: { ...stdio, args: [FIXTURE, '--modern'] },
    http: { url: `http://127.0.0.1:${http.port}/mcp` },
    dual: { ...stdio, args: [FIXTURE] },
    scripted: { ...stdio, args: [SCRIPT] },
    classic: { ...stdio, args: [LEGACY] },
  });
}, 60_000);
afterAll(async () => {
  await origin.close();
  await http.close();
});

let sessions = 0;
async function open(server: string, capabilities: object = ABLE, revision = '2025-11-25') {
  const at = { session: `session-${++sessions}`, server };
  const opened = await origin.ask(initialize(capabilities, revision), at);
  await origin.post({ jsonrpc: '2.0', method: 'notifications/initialized' }, at);
  return { at, opened };
}
const resultOf = (answer: JsonRpcResponse): Record<string, unknown> => {
  if (!('result' in answer)) throw new Error(JSON.stringify(answer));
  return answer.result;
};
const call = (id: string | number, args: object, more: object = {}) =>
  request(id, 'tools/call', { name: 'do', arguments: args, ...more });

describe.each(['stdio', 'http'])('the fixture over %s', (server) => {
  const tool = (id: number, name: string, args: object = {}, meta: object = {}) =>
    request(id, 'tools/call', { name, arguments: args, _meta: meta });

  test('initialize is answered from discovery; lists and calls have the older form', async () => {
    const { at, opened } = await open(server);
    expect(opened).toMatchObject({
      id: 'init',
      result: {
        protocolVersion: '2025-11-25',
        serverInfo: { name: 'moorage-conformance-fixture' },
        capabilities: { tools: { listChanged: true } },
      },
    });
    expect(opened).not.toHaveProperty('result.resultType');
    const list = resultOf(await origin.ask(request(1, 'tools/list'), at));
    for (const member of ['resultType', 'ttlMs', 'cacheScope']) expect(list).not.toHaveProperty(member);
    expect(resultOf(await origin.ask(request(2, 'ping'), at))).toEqual({});
    expect(textOf(await origin.ask(tool(3, 'echo', { message: 'é' }), at))).toBe('Echo: é');
    const { opened: older } = await open(server, {}, '2025-03-26');
    expect(older).toMatchObject({ result: { protocolVersion: '2025-03-26' } });
    const { opened: unknown } = await open(server, {}, '1999-01-01');
    expect(unknown).toMatchObject({ result: { protocolVersion: '2025-11-25' } });
  });

  test('progress and log lines come on the call', async () => {
    const { at } = await open(server);
    const progress = await origin.post(tool(1, 'test_tool_with_progress', {}, { progressToken: 'tok' }), at);
    await progress.done;
    expect(progress.messages.slice(0, 3)).toMatchObject(
      [0, 50, 100].map((n) => ({ params: { progressToken: 'tok', progress: n } })),
    );
    const logged = await origin.post(tool(2, 'test_tool_with_logging'), at);
    await logged.done;
    expect(logged.messages).toHaveLength(4);
    await origin.ask(request(3, 'logging/setLevel', { level: 'error' }), at);
    const silent = await origin.post(tool(4, 'test_tool_with_logging'), at);
    await silent.done;
    expect(silent.messages).toHaveLength(1);
    expect(await origin.ask(request(5, 'logging/setLevel', { level: 'loud' }), at)).toMatchObject({
      error: { code: -32602 },
    });
  });

  test('several rounds of several questions, asked as requests and answered by the client', async () => {
    const { at } = await open(server);
    const exchange = await origin.post(tool(1, 'test_input_required_result_multiple_inputs'), at);
    const answers: Record<string, object> = {
      'elicitation/create': { action: 'accept', content: { name: 'Ada' } },
      'sampling/createMessage': { role: 'assistant', model: 'm', content: { type: 'text', text: 'Hello' } },
      'roots/list': { roots: [{ uri: 'file:///a' }] },
    };
    await until(() => exchange.messages.length === 3);
    for (const question of exchange.messages as JsonRpcRequest[]) {
      await origin.post({ jsonrpc: '2.0', id: question.id, result: answers[question.method] }, at);
    }
    expect(textOf(await exchange.done)).toBe('Hello Ada, 1 roots');
  });

  test('errors are those of the server', async () => {
    const { at } = await open(server);
    expect(await origin.ask(request(1, 'no/method'), at)).toMatchObject({ id: 1, error: { code: -32601 } });
    expect(await origin.ask(request(2, 'resources/read', { uri: 'test://none' }), at)).toMatchObject({
      error: { code: -32602 },
    });
  });
});

describe('a server that does as told', () => {
  test('state comes back byte for byte, under a new id; a form that is refused is a form cancelled', async () => {
    const { at } = await open('scripted');
    const exchange = await origin.post(call(1, { action: 'ask' }), at);
    await until(() => exchange.messages.length === 1);
    const first = exchange.messages[0] as JsonRpcRequest;
    expect(first).toMatchObject({ method: 'elicitation/create', params: { message: 'round 1' } });
    await origin.post({ jsonrpc: '2.0', id: first.id, result: { action: 'accept', content: {} } }, at);
    await until(() => exchange.messages.length === 2);
    const second = exchange.messages[1] as JsonRpcRequest;
    await origin.post({ jsonrpc: '2.0', id: second.id, error: { code: -1, message: 'no' } }, at);
    expect(textOf(await exchange.done)).toBe('{"q2":{"action":"cancel"}}');
  });

  test('addresses get the id that older clients need', async () => {
    const { at } = await open('scripted');
    const exchange = await origin.post(call(1, { action: 'ask-url' }), at);
    await until(() => exchange.messages.length === 1);
    const question = exchange.messages[0] as JsonRpcRequest;
    expect(question.params).toMatchObject({
      mode: 'url',
      url: 'https://example.com/',
      elicitationId: expect.any(String),
    });
    await origin.post({ jsonrpc: '2.0', id: question.id, result: { action: 'accept' } }, at);
    expect(textOf(await exchange.done)).toBe('{"visit":{"action":"accept"}}');
  });

  test('what the client did not declare is not asked; a server that never stops asking is given up', async () => {
    const { at } = await open('scripted', {});
    const refused = resultOf(await origin.ask(call(1, { action: 'ask' }), at));
    expect(refused).toMatchObject({ isError: true, content: [{ text: expect.stringContaining('elicitation') }] });
    const endless = resultOf(await origin.ask(call(2, { action: 'ask-for-ever' }), at));
    expect(endless).toMatchObject({ isError: true, content: [{ text: expect.stringContaining('more than') }] });
  });

  test('structured content that is no object is wrapped, and its schema with it', async () => {
    const { at } = await open('scripted');
    expect(resultOf(await origin.ask(request(1, 'tools/list'), at)).tools).toMatchObject([
      { outputSchema: { type: 'object', properties: { result: { type: 'array' } }, required: ['result'] } },
    ]);
    expect(resultOf(await origin.ask(call(2, { action: 'array' }), at)).structuredContent).toEqual({ result: [1, 2] });
  });

  test('subscriptions are the router’s: list changes and updates arrive unasked, one stream at a time, also after a crash', async () => {
    const { at } = await open('scripted');
    const mine = () =>
      origin.unasked.filter(({ sessions: to }) => to.includes(at.session)).map(({ message }) => message);
    const listening = async () => textOf(await origin.ask(call('l', { action: 'listening' }), at));
    await until(() => origin.logged.length > 0);
    expect(await origin.ask(request(1, 'resources/subscribe', { uri: 'test://a' }), at)).toMatchObject({ result: {} });
    expect(await listening()).toContain('["test://a"]');
    await origin.ask(call(2, { action: 'changed' }), at);
    await until(() => mine().length >= 2);
    expect(mine()).toContainEqual({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' });
    expect(mine()).toContainEqual({
      jsonrpc: '2.0',
      method: 'notifications/resources/updated',
      params: { uri: 'test://a' },
    });
    await origin.ask(request(3, 'resources/unsubscribe', { uri: 'test://a' }), at);
    await expect.poll(listening).not.toContain('test://a');
    expect(await origin.ask(call(4, { action: 'crash' }), at)).toMatchObject({
      error: { data: { code: 'outcome_unknown' } },
    });
    const before = mine().length;
    const after = async () => {
      await origin.ask(call(5, { action: 'changed' }), at);
      return mine().length;
    };
    await expect.poll(after, { interval: 300 }).toBeGreaterThan(before);
  });

  test('a call that its client cancels is cancelled at the server', async () => {
    const { at } = await open('scripted');
    const never = await origin.post(call('n', { action: 'never' }), at);
    await origin.post({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'n' } }, at);
    expect(await never.done).toMatchObject({ id: 'n', error: { data: { cause: 'cancelled' } } });
    await until(() => origin.logged.some((line) => line.includes('notified notifications/cancelled')));
  });

  test('a list that shall wake nobody is answered while a process runs, and starts none when that is gone', async () => {
    const { at } = await open('scripted');
    const list = () => origin.ask(request(1, 'tools/list'), { ...at, headers: { [WAKE_HEADER]: 'no' } });
    expect(await list()).toHaveProperty('result.tools');
    const pid = textOf(await origin.ask(call(2, { action: 'pid' }), at));
    await origin.ask(call(3, { action: 'crash' }), at);
    await expect(list()).rejects.toMatchObject({ error: { code: 'session_unknown' } });
    expect(textOf(await origin.ask(call(4, { action: 'pid' }), at))).not.toBe(pid);
  });

  test('a session that the agent forgot is opened again, listening included', async () => {
    const at = { session: 'replayed', server: 'scripted' };
    await expect(origin.ask(call(1, { action: 'echo' }), at)).rejects.toMatchObject({
      error: { code: 'session_unknown' },
    });
    expect((await origin.post(initialize(ABLE), { ...at, replay: true })).status).toBe(200);
    expect(textOf(await origin.ask(call(2, { action: 'echo', value: 'v' }), at))).toBe('v');
    await until(
      () =>
        origin.unasked.some(({ sessions: to }) => to.includes('replayed')) ||
        void origin.ask(call(3, { action: 'changed' }), at) === null,
    );
    await origin.end(at);
    await expect(origin.ask(call(4, { action: 'echo' }), at)).rejects.toMatchObject({
      error: { code: 'session_unknown' },
    });
  });
});

describe('which era is spoken', () => {
  test('a server of both eras gives each client its own', async () => {
    const { at, opened } = await open('dual');
    expect(opened).toMatchObject({ result: { serverInfo: { name: 'moorage-conformance-fixture' } } });
    expect(
      textOf(await origin.ask(request(1, 'tools/call', { name: 'echo', arguments: { message: 'old' } }), at)),
    ).toBe('Echo: old');
    const lane = { session: 'lane', server: 'dual', modern: true };
    expect(resultOf(await origin.ask(modern(1, 'tools/list'), lane))).toMatchObject({
      cacheScope: 'public',
      ttlMs: 60_000,
    });
  });

  test('a refusal for another reason is the client’s to see', async () => {
    const refused = await origin.ask({ ...initialize(), params: {} }, { session: 'bad', server: 'dual' });
    expect(refused).toMatchObject({ id: 'init', error: { code: expect.any(Number) } });
  });
});
