/** Clients of 2026-07-28 at servers with sessions: discovery, subscriptions, log levels, and questions as `input_required`. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { WAKE_HEADER } from '../../shared/origin-api.ts';
import { META, metaOf } from '../../shared/rev-2026-07-28.ts';
import { type Direct, serveDirect } from '../conformance/direct.ts';
import {
  initialize,
  modern,
  type OriginUnderTest,
  request,
  type SendOptions,
  startOrigin,
  textOf,
  until,
} from '../support/origin.ts';

const FIXTURE = new URL('../conformance/stdio.ts', import.meta.url).pathname;
const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;

let origin: OriginUnderTest;
let direct: Direct;
beforeAll(async () => {
  direct = await serveDirect({ legacyOnly: true });
  const stdio = { runtime: 'process', command: 'node' };
  origin = await startOrigin({
    stdio: { ...stdio, args: [FIXTURE, '--legacy'] },
    http: { url: direct.url },
    scripted: { ...stdio, args: [SCRIPT] },
    asks: { ...stdio, args: [SCRIPT, '--asks-at-once'] },
    dies: { ...stdio, args: [SCRIPT, '--dies-of-probe'] },
    ignores: { ...stdio, args: [SCRIPT, '--ignores-probe'] },
    broken: { ...stdio, args: [SCRIPT, '--exit-at-once'] },
  });
}, 60_000);
afterAll(async () => {
  await origin.close();
  await direct.close();
});

const resultOf = (answer: JsonRpcResponse): Record<string, unknown> => {
  if (!('result' in answer)) throw new Error(JSON.stringify(answer));
  return answer.result;
};
const said = (text: string, times = 1) => origin.logged.filter((line) => line.includes(text)).length >= times;

describe.each(['stdio', 'http'])('the fixture over %s', (server) => {
  const at = { session: 'lane', server, modern: true };
  const call = (id: string | number, name: string, args: object = {}, capabilities: object = {}, meta: object = {}) =>
    modern(id, 'tools/call', { name, arguments: args }, capabilities, meta);

  test('discovery comes from the InitializeResult, with the server’s name; the server said nothing about caching, nor do we', async () => {
    const discovered = resultOf(await origin.ask(modern('d', 'server/discover'), at));
    expect(discovered).toMatchObject({
      resultType: 'complete',
      supportedVersions: ['2026-07-28'],
      capabilities: { tools: { listChanged: true }, resources: { subscribe: true } },
      _meta: { [META.serverInfo]: { name: 'moorage-conformance-fixture' } },
    });
    const tools = resultOf(await origin.ask(modern(1, 'tools/list'), at));
    expect(tools).toMatchObject({ resultType: 'complete' });
    for (const result of [discovered, tools]) expect(Object.keys(result)).not.toContain('ttlMs');
    expect(tools.tools).toContainEqual(expect.objectContaining({ name: 'echo' }));
    const echoed = await origin.ask(call(2, 'echo', { message: 'é' }), at);
    expect(resultOf(echoed)).toMatchObject({ resultType: 'complete', content: [{ text: 'Echo: é' }] });
    expect(resultOf(echoed)).not.toHaveProperty('ttlMs');
  });

  test('a request that shall wake nobody is answered by what is awake, else not at all', async () => {
    const quiet = { ...at, headers: { [WAKE_HEADER]: 'no' } };
    expect(resultOf(await origin.ask(modern(1, 'tools/list'), quiet))).toHaveProperty('tools');
    for (const fresh of [
      { ...quiet, session: 'fresh lane' },
      { ...quiet, server: 'scripted' },
    ]) {
      await expect(origin.ask(modern(1, 'tools/list'), fresh)).rejects.toMatchObject({
        error: { code: 'session_unknown' },
      });
    }
    expect(origin.logged.filter((line) => line.startsWith('[scripted]'))).toEqual([]);
  });

  test('progress under the client’s token, log lines only where they were asked for', async () => {
    const progress = await origin.post(call(1, 'test_tool_with_progress', {}, {}, { progressToken: 'tok' }), at);
    await progress.done;
    expect(progress.messages.slice(0, 3)).toMatchObject(
      [0, 50, 100].map((n) => ({ params: { progressToken: 'tok', progress: n } })),
    );
    const logged = await origin.post(call(2, 'test_tool_with_logging', {}, {}, { [META.logLevel]: 'info' }), at);
    await logged.done;
    expect(logged.messages).toHaveLength(4);
    const silent = await origin.post(call(3, 'test_tool_with_logging'), at);
    await silent.done;
    expect(silent.messages).toHaveLength(1);
  });

  test('sampling and elicitation in the middle of a call: asked, answered by a retry, finished', async () => {
    const capabilities = { sampling: {}, elicitation: {} };
    const args = { name: 'test_sampling', arguments: { prompt: 'capital?' } };
    const first = resultOf(await origin.ask(modern(1, 'tools/call', args, capabilities), at));
    expect(first).toMatchObject({ resultType: 'input_required', requestState: expect.any(String) });
    expect(first).not.toHaveProperty('ttlMs');
    const [key, asked] =
      Object.entries(first.inputRequests as Record<string, { method: string; params: object }>)[0] ?? [];
    expect(asked).toMatchObject({ method: 'sampling/createMessage', params: { maxTokens: 100 } });
    const answer = { role: 'assistant', model: 'm', content: { type: 'text', text: 'Paris' } };
    const retry = { ...args, requestState: first.requestState, inputResponses: { [key ?? '']: answer } };
    expect(textOf(await origin.ask(modern(2, 'tools/call', retry, capabilities), at))).toBe('LLM response: Paris');
  });

  test('a capability that the client lacks and the server insists on', async () => {
    const answer = await origin.ask(call(1, 'test_elicitation', { message: 'x' }, { sampling: {} }), at);
    expect(resultOf(answer)).toMatchObject({ isError: true });
  });

  test('subscriptions: acknowledged with what the server can, heard by those who asked, given up at the end', async () => {
    const gone = new AbortController();
    const notifications = { toolsListChanged: true, resourceSubscriptions: ['test://watched-resource'] };
    const tools = await origin.post(modern('L1', 'subscriptions/listen', { notifications }), {
      ...at,
      signal: gone.signal,
    });
    const other = await origin.post(
      modern(7, 'subscriptions/listen', { notifications: { promptsListChanged: true, taskStatus: true } }),
      at,
    );
    await until(() => tools.messages.length > 0 && other.messages.length > 0);
    expect(tools.messages[0]).toEqual({
      jsonrpc: '2.0',
      method: 'notifications/subscriptions/acknowledged',
      params: { notifications, _meta: { [META.subscriptionId]: 'L1' } },
    });
    expect(other.messages[0]).toMatchObject({
      params: { notifications: { promptsListChanged: true }, _meta: { [META.subscriptionId]: 7 } },
    });
    await until(() => {
      void origin.ask(call('t', 'test_trigger_tool_change'), at);
      return tools.messages.length > 1;
    });
    await origin.ask(call('u', 'test_trigger_resource_update'), at);
    await origin.ask(call('p', 'test_trigger_prompt_change'), at);
    await until(
      () => other.messages.length > 1 && tools.messages.some((m) => 'method' in m && m.method.endsWith('updated')),
    );
    const ids = tools.messages
      .slice(1)
      .map((m) => ('method' in m ? metaOf(m.params)?.[META.subscriptionId] : undefined));
    expect(new Set(ids)).toEqual(new Set(['L1']));
    expect(other.messages.slice(1)).toMatchObject([
      { method: 'notifications/prompts/list_changed', params: { _meta: { [META.subscriptionId]: 7 } } },
    ]);
    gone.abort();
  });

  test('methods of the other era do not exist; its error codes are translated', async () => {
    for (const method of ['ping', 'initialize', 'logging/setLevel', 'resources/subscribe', 'tasks/list']) {
      expect(await origin.ask(modern(method, method), at)).toMatchObject({ id: method, error: { code: -32601 } });
    }
    expect(await origin.ask(modern(1, 'resources/read', { uri: 'test://none' }), at)).toMatchObject({
      error: { code: -32602 },
    });
    expect(await origin.ask(modern(2, 'no/method'), at)).toMatchObject({ error: { code: -32601 } });
  });
});

describe('a server that asks', () => {
  const at = { session: 'lane', server: 'scripted', modern: true };
  const ABLE = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };
  const call = (id: string | number, args: object, more: object = {}, capabilities: object = ABLE, meta: object = {}) =>
    modern(id, 'tools/call', { name: 'do', arguments: args, ...more }, capabilities, meta);
  const ask = async (
    id: string | number,
    args: object,
    more: object = {},
    capabilities: object = ABLE,
    options: object = {},
  ) => await origin.ask(call(id, args, more, capabilities), { ...at, ...options });
  /** All that the process of these clients wrote to standard error until now is logged. */
  const written = async (options: SendOptions, capabilities: object = ABLE) => {
    const lines = () => origin.logged.filter((line) => line.endsWith('a line on stderr')).length;
    const before = lines();
    await origin.ask(call('w', { action: 'stderr' }, {}, capabilities), options);
    await until(() => lines() > before);
  };
  const keysOf = (result: Record<string, unknown>) => Object.keys(result.inputRequests as object);
  const BAD = { error: { code: -32602, data: { code: 'invalid_params' } } };

  test('questions of one breath come together; one left out is asked again, with those that came meanwhile', async () => {
    const args = { action: 'ask-many', times: 3, atOnce: true };
    const first = resultOf(await ask(1, args));
    expect(keysOf(first)).toEqual(['input-1', 'input-2', 'input-3']);
    const some = {
      requestState: first.requestState,
      inputResponses: { 'input-1': { action: 'decline' }, 'input-3': { action: 'cancel' }, other: {} },
    };
    const second = resultOf(await ask(2, args, some));
    expect(keysOf(second)).toEqual(['input-2']);
    const rest = {
      requestState: second.requestState,
      inputResponses: { 'input-2': { action: 'accept', content: {} } },
    };
    expect(textOf(await ask(3, args, rest))).toBe(
      '[{"action":"decline"},{"action":"cancel"},{"action":"accept","content":{}}]',
    );
  });

  test('questions one after the other are rounds; a state is good once', async () => {
    const args = { action: 'ask-many', times: 2 };
    const first = resultOf(await ask(1, args));
    const again = { requestState: first.requestState, inputResponses: { 'input-1': { action: 'decline' } } };
    const second = resultOf(await ask(2, args, again));
    expect(second.requestState).not.toBe(first.requestState);
    expect(await ask(3, args, again)).toMatchObject(BAD);
    const last = { requestState: second.requestState, inputResponses: { 'input-2': { action: 'cancel' } } };
    expect(textOf(await ask(4, args, last))).toBe('[{"action":"decline"},{"action":"cancel"}]');
    expect(await ask(5, args, last)).toMatchObject(BAD);
  });

  test('a state is good for its principal, lane and request alone, and not when it was changed', async () => {
    const args = { action: 'ask-many', times: 1 };
    const { requestState } = resultOf(await ask(1, args)) as { requestState: string };
    const inputResponses = { 'input-1': { action: 'cancel' } };
    const flipped = requestState.slice(0, -1) + (requestState.endsWith('A') ? 'B' : 'A');
    expect(await ask(2, args, { requestState: flipped, inputResponses })).toMatchObject(BAD);
    expect(await ask(3, args, { requestState: '', inputResponses })).toMatchObject(BAD);
    expect(await ask(4, args, { requestState: 7, inputResponses })).toMatchObject(BAD);
    expect(await ask(5, { ...args, times: 2 }, { requestState, inputResponses })).toMatchObject(BAD);
    expect(await ask(6, args, { requestState, inputResponses }, ABLE, { principal: 'q' })).toMatchObject(BAD);
    expect(await ask(7, args, { requestState, inputResponses }, ABLE, { session: 'other' })).toMatchObject(BAD);
    expect(await ask(8, args, { requestState, inputResponses: [] })).toMatchObject(BAD);
    // None of this used it up, and the order of members does not matter.
    expect(textOf(await ask(9, { times: 1, action: 'ask-many' }, { requestState, inputResponses }))).toBe(
      '[{"action":"cancel"}]',
    );
  });

  test('a server that does not wait for its answer: the retry gets the result', async () => {
    const args = { action: 'ask-and-go' };
    const { requestState } = resultOf(await ask(1, args));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(textOf(await ask(2, args, { requestState, inputResponses: { 'input-1': { roots: [] } } }))).toBe(
      'did not wait',
    );
  });

  test('forms, addresses, completions and roots go only to clients that declared them', async () => {
    const form = {
      action: 'ask-method',
      insists: true,
      method: 'elicitation/create',
      params: { message: 'm', requestedSchema: {} },
    };
    const url = { ...form, params: { mode: 'url', message: 'm', url: 'https://example.com/', elicitationId: 'e' } };
    const roots = { action: 'ask-method', insists: true, method: 'roots/list' };
    const other = { action: 'ask-method', method: 'com.example/ask', params: {} };
    const required = (requiredCapabilities: object) => ({ error: { code: -32021, data: { requiredCapabilities } } });
    expect(resultOf(await ask(1, form, {}, { elicitation: {} }))).toMatchObject({ resultType: 'input_required' });
    expect(await ask(2, url, {}, { elicitation: {} })).toMatchObject(required({ elicitation: { url: {} } }));
    expect(await ask(3, form, {}, { elicitation: { url: {} } })).toMatchObject(required({ elicitation: { form: {} } }));
    expect(await ask(4, roots, {}, { sampling: {} })).toMatchObject(required({ roots: {} }));
    const asked = resultOf(await ask(5, url, {}, ABLE));
    expect(asked.inputRequests).toEqual({
      'input-1': { method: 'elicitation/create', params: { mode: 'url', message: 'm', url: 'https://example.com/' } },
    });
    expect(textOf(await ask(6, other))).toContain('-32601');
  });

  test('a visit that the server demands by an error is asked for, and the request sent again', async () => {
    const error = {
      code: -32042,
      message: 'visit',
      data: { elicitations: [{ mode: 'url', url: 'https://example.com/', message: 'm', elicitationId: 'e' }] },
    };
    const args = { action: 'error', error };
    const first = resultOf(await ask(1, args));
    expect(first.inputRequests).toEqual({
      'input-1': { method: 'elicitation/create', params: { mode: 'url', url: 'https://example.com/', message: 'm' } },
    });
    const retry = { requestState: first.requestState, inputResponses: { 'input-1': { action: 'accept' } } };
    expect(resultOf(await ask(2, args, retry))).toMatchObject({ resultType: 'input_required' });
    expect(await ask(3, args, {}, { elicitation: {} })).toMatchObject({ error: { code: -32021 } });
    for (const [code, becomes] of [
      [-32002, -32602],
      [-32020, -32603],
      [-32050, -32603],
      [-32000, -32000],
      [7, 7],
    ]) {
      expect(await ask('e', { action: 'error', error: { code, message: 'm' } })).toMatchObject({
        error: { code: becomes },
      });
    }
  });

  test('calls side by side: what the server asks for any of them is asked on one, and all are answered', async () => {
    const options = { ...at, session: 'parallel' };
    const exchanges = await Promise.all(
      [1, 2, 3].map((n) => origin.post(call(n, { action: 'ask-many', times: 1, n }), options)),
    );
    const first = await Promise.race(exchanges.map(async ({ done }) => await done));
    const result = resultOf(first);
    const inputResponses = Object.fromEntries(keysOf(result).map((key) => [key, { action: 'decline' }]));
    expect(keysOf(result)).toHaveLength(3);
    const args = { action: 'ask-many', times: 1, n: first.id };
    const retried = await origin.ask(call(9, args, { requestState: result.requestState, inputResponses }), options);
    const others = await Promise.all(exchanges.map(async ({ done }) => await done));
    const texts = [retried, ...others.filter((answer) => answer.id !== first.id)].map(textOf);
    expect(texts).toEqual(['[{"action":"decline"}]', '[{"action":"decline"}]', '[{"action":"decline"}]']);
  });

  test('calls that wait for their clients are bounded per lane; other lanes go on', async () => {
    const options = { session: 'greedy' };
    const park = async (n: number) => await ask(n, { action: 'ask-many', times: 1, n }, {}, ABLE, options);
    const parked: JsonRpcResponse[] = [];
    for (let n = 0; n < 32; n++) parked.push(await park(n));
    for (const each of parked) expect(resultOf(each)).toMatchObject({ resultType: 'input_required' });
    expect(await park(33)).toMatchObject({ error: { data: { code: 'overloaded' } } });
    expect(resultOf(await ask(1, { action: 'ask-many', times: 1 }))).toMatchObject({ resultType: 'input_required' });
    const { requestState } = resultOf(parked[0] as JsonRpcResponse);
    const retry = { requestState, inputResponses: { 'input-1': { action: 'cancel' } } };
    expect(textOf(await ask(40, { action: 'ask-many', times: 1, n: 0 }, retry, ABLE, options))).toBe(
      '[{"action":"cancel"}]',
    );
    expect(resultOf(await park(34))).toMatchObject({ resultType: 'input_required' });
  });

  test('a question outside of any call waits for one that can carry it', async () => {
    const options = { ...at, server: 'asks' };
    // It asks before it answers this.
    await origin.ask(modern(1, 'tools/list', {}, ABLE), options);
    const first = resultOf(await origin.ask(call(2, { action: 'echo', value: 'now' }), options));
    expect(first.inputRequests).toEqual({ 'input-1': { method: 'roots/list', params: {} } });
    const retry = {
      requestState: first.requestState,
      inputResponses: { 'input-1': { roots: [{ uri: 'file:///a' }] } },
    };
    expect(textOf(await origin.ask(call(3, { action: 'echo', value: 'now' }, retry), options))).toBe('now');
    await until(() => said('roots {"roots":[{"uri":"file:///a"}]}'));
  });

  test('log levels: told to the server when more is wanted, filtered on the way out', async () => {
    const at2 = { ...at, session: 'logs' };
    const log = async (id: number, level?: string) => {
      const meta = level === undefined ? {} : { [META.logLevel]: level };
      const exchange = await origin.post(
        call(id, { action: 'log-at', levels: ['debug', 'warning', 'alert'] }, {}, ABLE, meta),
        at2,
      );
      await exchange.done;
      return exchange.messages.slice(0, -1).map((m) => ('method' in m ? m.params?.level : undefined));
    };
    expect(await log(1, 'warning')).toEqual(['warning', 'alert']);
    expect(await log(2, 'alert')).toEqual(['alert']);
    expect(await log(3)).toEqual([]);
    expect(await log(4, 'debug')).toEqual(['debug', 'warning', 'alert']);
    await written(at2);
    expect(
      origin.logged
        .filter((line) => line.includes('level ') && line.startsWith('[scripted]'))
        .map((line) => line.split(' ').at(-1)),
    ).toEqual(['warning', 'debug']);
  });

  test('a resource is subscribed to once, given up with the last listener; one that is not there is not acknowledged', async () => {
    const options = { ...at, session: 'listens' };
    const listen = async (id: string, uris: string[]) => {
      const gone = new AbortController();
      const notifications = { resourceSubscriptions: uris, resourcesListChanged: true };
      const exchange = await origin.post(modern(id, 'subscriptions/listen', { notifications }), {
        ...options,
        signal: gone.signal,
      });
      await until(() => exchange.messages.length > 0);
      return { gone, exchange };
    };
    const a = await listen('a', ['test://x', 'none://y']);
    const b = await listen('b', ['test://x']);
    expect(a.exchange.messages[0]).toMatchObject({
      params: { notifications: { resourceSubscriptions: ['test://x'] } },
    });
    expect(JSON.stringify(a.exchange.messages[0])).not.toContain('resourcesListChanged');
    await origin.ask(
      modern(1, 'tools/call', { name: 'do', arguments: { action: 'updated', uri: 'test://x/part' } }),
      options,
    );
    await until(() => a.exchange.messages.length > 1 && b.exchange.messages.length > 1);
    await written(options, {});
    expect(
      origin.logged.filter((line) => line.includes(' subscribed test://x') || line.includes('] subscribed test://x')),
    ).toHaveLength(1);
    a.gone.abort();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(said('unsubscribed test://x')).toBe(false);
    b.gone.abort();
    await until(() => said('unsubscribed test://x'));
  });

  test('a connection that closes cancels the call at the server; one that waits for its client is not touched', async () => {
    const gone = new AbortController();
    const never = origin.post(call('n', { action: 'never' }), { ...at, session: 'cancels', signal: gone.signal });
    never.catch(() => undefined);
    await until(() => said('never answers'));
    gone.abort();
    await until(() => said('notified notifications/cancelled'));
  });

  test('what a client declares decides what its process is told; without any, lanes share one', async () => {
    const pid = async (session: string, capabilities: object) =>
      textOf(await ask('p', { action: 'pid' }, {}, capabilities, { session }));
    expect(await pid('a', {})).toBe(await pid('b', {}));
    expect(await pid('a', ABLE)).not.toBe(await pid('b', ABLE));
    expect(await pid('a', ABLE)).toBe(await pid('a', ABLE));
    const before = await pid('a', ABLE);
    await origin.end({ ...at, session: 'a' });
    expect(await pid('a', ABLE)).not.toBe(before);
  });

  test('a process that ends: the call has an unknown outcome, listeners a graceful end, and the lane goes on', async () => {
    const options = { ...at, session: 'crashes' };
    const listening = await origin.post(
      modern('L', 'subscriptions/listen', { notifications: { toolsListChanged: true } }, ABLE),
      options,
    );
    await until(() => listening.messages.length > 0);
    const parked = resultOf(await ask(1, { action: 'ask-many', times: 1 }, {}, ABLE, options));
    expect(await ask(2, { action: 'crash' }, {}, ABLE, options)).toMatchObject({
      error: { data: { code: 'outcome_unknown', exitCode: 3 } },
    });
    expect(await listening.done).toMatchObject({
      id: 'L',
      result: { resultType: 'complete', _meta: { [META.subscriptionId]: 'L' } },
    });
    expect(
      await ask(
        3,
        { action: 'ask-many', times: 1 },
        { requestState: parked.requestState, inputResponses: {} },
        ABLE,
        options,
      ),
    ).toMatchObject({
      error: { data: { code: 'outcome_unknown' } },
    });
    expect(textOf(await ask(4, { action: 'echo', value: 'alive' }, {}, ABLE, options))).toBe('alive');
  });

  test('only the envelope is taken off; everything else of a request arrives', async () => {
    const sent = modern(1, 'com.example/future', { a: 1 }, ABLE, {
      traceparent: '00-1',
      'com.example/x': {},
      [META.logLevel]: 'info',
    });
    expect(resultOf(await origin.ask(sent, at)).seen).toEqual({
      a: 1,
      _meta: { traceparent: '00-1', 'com.example/x': {} },
    });
  });
});

describe('the probe', () => {
  test.each([
    ['dies', 'a server that dies of it'],
    ['ignores', 'a server that ignores it'],
  ])('%s: %s has lost nothing', async (server) => {
    const at = { session: 'lane', server, modern: true };
    expect(
      textOf(await origin.ask(modern(1, 'tools/call', { name: 'do', arguments: { action: 'echo', value: 'v' } }), at)),
    ).toBe('v');
    const probes = () =>
      origin.logged.filter((line) => line.startsWith(`[${server}]`) && line.includes('probed')).length;
    const probed = probes();
    expect(probed).toBeGreaterThan(0);
    await origin.ask(modern(2, 'tools/list'), { ...at, session: 'another' });
    // What it is, is known.
    expect(probes()).toBe(probed);
  });

  test('a server that cannot start is no verdict: the caller is told', async () => {
    const at = { session: 'lane', server: 'broken', modern: true };
    expect(await origin.ask(modern(1, 'tools/list'), at)).toMatchObject({
      error: { data: { code: 'server_failed', exitCode: 7 } },
    });
  });

  test('sessions and lanes use one server side by side', async () => {
    const at = { session: 'classic', server: 'scripted' };
    await origin.ask(initialize(), at);
    expect(
      textOf(
        await origin.ask(request(1, 'tools/call', { name: 'do', arguments: { action: 'echo', value: 'old' } }), at),
      ),
    ).toBe('old');
    const question = await origin.ask(modern(1, 'tools/call', { name: 'do', arguments: { action: 'changed' } }), {
      ...at,
      session: 'l',
      modern: true,
    });
    expect(textOf(question)).toBe('said');
    await until(() => origin.unasked.length > 0);
    expect(origin.unasked.every(({ sessions }) => sessions.every((session) => !session.startsWith('lane ')))).toBe(
      true,
    );
    expect(origin.unasked[0]?.message).toMatchObject({ method: 'notifications/tools/list_changed' });
  });
});
