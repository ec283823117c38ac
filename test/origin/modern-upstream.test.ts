/** Clients of 2026-07-28 at servers of 2026-07-28, over stdio and over HTTP: everything passes as it is. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { JsonRpcNotification, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { LISTS_HEADER, WAKE_HEADER } from '../../shared/origin-api.ts';
import { META } from '../../shared/rev-2026-07-28.ts';
import { type Direct, serveDirect } from '../conformance/direct.ts';
import { modern, type OriginUnderTest, startOrigin, textOf, until } from '../support/origin.ts';

const FIXTURE = new URL('../conformance/stdio.ts', import.meta.url).pathname;
const SCRIPT = new URL('../support/modern-server.mjs', import.meta.url).pathname;

let origin: OriginUnderTest;
let direct: Direct;
beforeAll(async () => {
  direct = await serveDirect();
  const stdio = { runtime: 'process', command: 'node' };
  origin = await startOrigin({
    stdio: { ...stdio, args: [FIXTURE, '--modern'] },
    http: { url: direct.url },
    scripted: { ...stdio, args: [SCRIPT] },
    alone: { ...stdio, args: [SCRIPT], process: 'session' },
  });
}, 60_000);
afterAll(async () => {
  await origin.close();
  await direct.close();
});

describe.each(['stdio', 'http'])('the fixture over %s', (server) => {
  const at = { session: 'lane', server, modern: true };
  const call = (id: string | number, name: string, args: object = {}, capabilities: object = {}, meta: object = {}) =>
    modern(id, 'tools/call', { name, arguments: args }, capabilities, meta);
  const named = (name: string) => ({ ...at, headers: { 'mcp-param-region': 'eu' }, name });

  test('discover, lists and calls come in the form of the era', async () => {
    expect(await origin.ask(modern('d', 'server/discover'), at)).toMatchObject({
      id: 'd',
      result: { resultType: 'complete', supportedVersions: ['2026-07-28'], ttlMs: expect.any(Number) },
    });
    expect(await origin.ask(modern(1, 'tools/list'), at)).toMatchObject({
      result: { cacheScope: 'public', ttlMs: 60_000 },
    });
    expect(textOf(await origin.ask(call(2, 'echo', { message: 'é' }), at))).toBe('Echo: é');
    expect(textOf(await origin.ask(call(3, 'test_x_mcp_header', { region: 'eu' }), named('test_x_mcp_header')))).toBe(
      'region=eu',
    );
  });

  test('many at once with the same ids from several lanes', async () => {
    const all = Array.from({ length: 40 }, async (_, n) => {
      const answer = await origin.ask(call(1, 'echo', { message: String(n) }), { ...at, session: `lane${n % 3}` });
      expect(answer.id).toBe(1);
      expect(textOf(answer)).toBe(`Echo: ${n}`);
    });
    await Promise.all(all);
  });

  test('progress under the client’s token; log lines only where they were asked for', async () => {
    const progress = await origin.post(call(1, 'test_tool_with_progress', {}, {}, { progressToken: 'tok' }), at);
    expect(textOf(await progress.done)).toContain('Progress reported');
    expect(progress.messages.slice(0, 3)).toMatchObject(
      [0, 50, 100].map((n) => ({ params: { progressToken: 'tok', progress: n } })),
    );
    const silent = await origin.post(call(2, 'test_tool_with_logging'), at);
    await silent.done;
    expect(silent.messages).toHaveLength(1);
    const logged = await origin.post(call(3, 'test_tool_with_logging', {}, {}, { [META.logLevel]: 'info' }), at);
    await logged.done;
    expect(logged.messages.slice(0, -1)).toMatchObject([1, 2, 3].map(() => ({ method: 'notifications/message' })));
  });

  test('a call in rounds: questions and state pass untouched', async () => {
    const first = await origin.ask(call(1, 'test_input_required_result_request_state', {}, { elicitation: {} }), at);
    if (!('result' in first)) throw new Error(JSON.stringify(first));
    expect(first.result).toMatchObject({
      resultType: 'input_required',
      inputRequests: { confirm: { method: 'elicitation/create' } },
    });
    const retry = {
      name: 'test_input_required_result_request_state',
      arguments: {},
      requestState: first.result.requestState,
      inputResponses: { confirm: { action: 'accept', content: { ok: true } } },
    };
    expect(textOf(await origin.ask(modern(2, 'tools/call', retry, { elicitation: {} }), at))).toContain('state-ok');
    const tampered = { ...retry, requestState: `${String(retry.requestState)}x` };
    expect(await origin.ask(modern(3, 'tools/call', tampered, { elicitation: {} }), at)).toMatchObject({
      error: { code: -32602 },
    });
  });

  test('headers that repeat an argument must agree with it, whoever checks them', async () => {
    const region = (value: string | undefined, args: object = { region: 'eu' }) =>
      origin.ask(call(1, 'test_x_mcp_header', args), {
        ...at,
        headers: value === undefined ? {} : { 'mcp-param-region': value },
      });
    expect(textOf(await region('=?base64?ZXU=?='))).toBe('region=eu');
    for (const wrong of [undefined, 'us', '=?base64?!?='])
      expect(await region(wrong)).toMatchObject({ error: { code: -32020 } });
    expect(textOf(await region('eu', {}))).toBe('region=none');
  });

  test('errors are those of the server', async () => {
    expect(await origin.ask(call(1, 'test_missing_capability'), at)).toMatchObject({
      error: { code: -32021, data: { requiredCapabilities: { sampling: {} } } },
    });
    expect(await origin.ask(modern(2, 'ping'), at)).toMatchObject({ id: 2, error: { code: -32601 } });
    expect(await origin.ask(modern(3, 'future/method'), at)).toMatchObject({ error: { code: -32601 } });
    expect(await origin.ask(modern(4, 'resources/read', { uri: 'test://none' }), at)).toMatchObject({
      error: { code: -32602 },
    });
  });

  test('subscriptions: acknowledged first, named by the client’s id, two side by side, and closed with their connection', async () => {
    const closing = [new AbortController(), new AbortController()];
    const listen = async (id: string, notifications: object, signal: AbortSignal | undefined) =>
      await origin.post(modern(id, 'subscriptions/listen', { notifications }), {
        ...at,
        ...(signal ? { signal } : {}),
      });
    const tools = await listen('L1', { toolsListChanged: true }, closing[0]?.signal);
    const watched = await listen('L2', { resourceSubscriptions: ['test://watched-resource'] }, closing[1]?.signal);
    await until(() => tools.messages.length > 0 && watched.messages.length > 0);
    const head = (id: string) => ({
      method: 'notifications/subscriptions/acknowledged',
      params: { _meta: { [META.subscriptionId]: id } },
    });
    expect(tools.messages[0]).toMatchObject(head('L1'));
    expect(watched.messages[0]).toMatchObject(head('L2'));
    await origin.ask(call(1, 'test_trigger_tool_change'), at);
    await origin.ask(call(2, 'test_trigger_resource_update'), at);
    await until(() => tools.messages.length > 1 && watched.messages.length > 1);
    expect(tools.messages.slice(1)).toMatchObject([
      { method: 'notifications/tools/list_changed', params: { _meta: { [META.subscriptionId]: 'L1' } } },
    ]);
    expect(watched.messages.slice(1)).toMatchObject([
      {
        method: 'notifications/resources/updated',
        params: { uri: 'test://watched-resource', _meta: { [META.subscriptionId]: 'L2' } },
      },
    ]);
    for (const each of closing) each.abort();
  });
});

describe('a server that shows what it was sent', () => {
  const at = { session: 'lane', server: 'scripted', modern: true };
  const call = (id: string | number, args: object, meta: object = {}) =>
    modern(id, 'tools/call', { name: 'do', arguments: args }, {}, meta);
  const said = (text: string) => origin.logged.some((line) => line.includes(text));

  test('`_meta`, unknown members, unknown methods and unknown notifications pass untouched', async () => {
    const meta = { traceparent: '00-1', 'com.example/x': { a: [1] }, [META.clientCapabilities]: { future: {} } };
    const sent = modern('x', 'future/method', { more: { deep: true } }, {}, meta);
    const { result } = (await origin.ask(sent, at)) as unknown as { result: { seen: JsonRpcRequest } };
    expect(result.seen.params).toEqual(sent.params);
    expect(result).toMatchObject({ resultType: 'com.example/other', unknown: 1 });
  });

  test('a connection that closes cancels the request at the server, and its answer goes nowhere', async () => {
    const gone = new AbortController();
    const never = origin.post(call('c', { action: 'never' }), { ...at, signal: gone.signal });
    never.catch(() => undefined);
    await until(() => said('called never'));
    gone.abort();
    await until(() => said('notified notifications/cancelled'));
    expect(textOf(await origin.ask(call('after', { action: 'echo', value: 'alive' }), at))).toBe('alive');
  });

  test('what it may not do does no harm: requests, answers and subscriptions of others, log lines that nobody asked for', async () => {
    const exchange = await origin.post(call('h', { action: 'misbehave' }, { progressToken: 'p' }), at);
    expect(textOf(await exchange.done)).toBe('behaved badly');
    expect(exchange.messages).toHaveLength(1);
  });

  test('a process that changed its lists after it was called says so with every answer, and wakes for nobody who asks it not to', async () => {
    const own = { session: 'changing', server: 'alone', modern: true };
    const lists = async (headers = {}) =>
      (await origin.post(modern(1, 'tools/list'), { ...own, headers })).headers.get(LISTS_HEADER);
    const quiet = { [WAKE_HEADER]: 'no' };
    expect((await origin.post(modern(1, 'tools/list'), { ...own, headers: quiet }).catch(() => null))?.status).toBe(
      409,
    );
    expect(await lists()).toBeNull();
    await origin.ask(call(2, { action: 'misbehave' }), own);
    expect([await lists(), await lists(quiet)]).toEqual(['changed', 'changed']);
  });

  test('a list that changes is told though no client listens, with whoever used the process last; also after its subscription ended', async () => {
    const told = () => origin.changed.filter(({ lane }) => lane.id === 'last');
    for (const [n, times] of [1, 2].entries()) {
      const last = { session: 'last', server: 'scripted', principal: 'ada', modern: true };
      await origin.ask(modern(1, 'tools/call', { name: 'do', arguments: { action: 'changed' } }, { future: {} }), last);
      await until(() => told().length === times);
      expect(told()[n]).toEqual({
        lane: { id: 'last', server: 'scripted', principal: 'ada', capabilities: { future: {} } },
        message: { jsonrpc: '2.0', method: 'notifications/tools/list_changed' },
        starting: false,
      });
      await origin.ask(call('t', { action: 'tear-down' }), at);
    }
    // The next process lists what a fresh one does, whatever this one had become.
    await origin.ask(call('c', { action: 'crash' }), { ...at, session: 'last', principal: 'ada' });
    await until(() => told().length === 5);
    expect(told().slice(2)).toMatchObject(
      ['tools', 'prompts', 'resources'].map((kind) => ({
        message: { method: `notifications/${kind}/list_changed` },
        starting: false,
      })),
    );
  });

  test('a subscription that the server tears down ends as a result', async () => {
    const listening = await origin.post(modern('L', 'subscriptions/listen', { notifications: {} }), at);
    await until(() => listening.messages.length > 0);
    await origin.ask(call('t', { action: 'tear-down' }), at);
    expect(await listening.done).toMatchObject({
      id: 'L',
      result: { resultType: 'complete', _meta: { [META.subscriptionId]: 'L' } },
    });
  });

  test('a process that ends fails its requests with an unknown outcome, and the lane goes on', async () => {
    const pid = textOf(await origin.ask(call(1, { action: 'pid' }), at));
    expect(await origin.ask(call(2, { action: 'crash' }), at)).toMatchObject({
      error: { data: { code: 'outcome_unknown', exitCode: 3, retryable: false } },
    });
    expect(textOf(await origin.ask(call(3, { action: 'pid' }), at))).not.toBe(pid);
  });

  test('one process for all lanes, or one a lane where the configuration says so; ending a lane ends its own', async () => {
    const pid = async (session: string, server: string) =>
      textOf(await origin.ask(call(1, { action: 'pid' }), { session, server, modern: true }));
    expect(await pid('a', 'scripted')).toBe(await pid('b', 'scripted'));
    const [a, b] = [await pid('a', 'alone'), await pid('b', 'alone')];
    expect(a).not.toBe(b);
    expect(await pid('a', 'alone')).toBe(a);
    await origin.end({ session: 'a', server: 'alone', modern: true });
    expect(await pid('a', 'alone')).not.toBe(a);
    expect(await pid('b', 'alone')).toBe(b);
  });

  test('an envelope that is not one is refused before anything starts', async () => {
    const bare = { jsonrpc: '2.0', id: 1, method: 'tools/list' };
    expect(await origin.ask(bare, at)).toMatchObject({ id: 1, error: { code: -32602, data: { key: META.revision } } });
    const old = modern(2, 'tools/list', {}, {}, { [META.revision]: '2099-01-01' });
    expect(await origin.ask(old, at)).toMatchObject({ error: { code: -32022, data: { requested: '2099-01-01' } } });
  });

  test('a notification of an extension passes to the server that is there', async () => {
    const note: JsonRpcNotification = { jsonrpc: '2.0', method: 'notifications/com.example' };
    expect((await origin.post(note, at)).status).toBe(202);
    await until(() => said('notified notifications/com.example'));
  });
});
