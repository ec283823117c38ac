/** What the agent does for the edge when something was lost: sessions are restored once, its own words are marked. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FAILURE_EVENT, FAILURE_HEADER, LISTS_HEADER } from '../../shared/origin-api.ts';
import { initialize, type OriginUnderTest, request, type SendOptions, startOrigin, until } from '../support/origin.ts';

const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
let origin: OriginUnderTest;
beforeAll(async () => {
  const entry = { runtime: 'process', command: process.execPath, args: [SCRIPT] };
  origin = await startOrigin({ scripted: entry, broken: { ...entry, args: [SCRIPT, '--exit-at-once'] } });
});
afterAll(() => origin.close());

let sessions = 0;
const somebody = (): SendOptions => ({ session: `s${++sessions}`, server: 'scripted' });
const act = (id: number, action: string, args: object = {}) =>
  request(id, 'tools/call', { name: 'do', arguments: { action, ...args } });
const logged = (line: string) => origin.logged.filter((text) => text === `[scripted] ${line}`).length;

describe('a session that is restored', () => {
  test.each([
    ['a process of its own', { sampling: {} }],
    ['a shared one', {}],
  ])('by 50 at once is restored once, before anybody’s message passes: %s', async (_, capabilities) => {
    const at = somebody();
    const uri = `test:${at.session}`;
    const replay = [
      initialize(capabilities),
      request('r1', 'logging/setLevel', { level: `level-${at.session}` }),
      request('r2', 'resources/subscribe', { uri }),
    ];
    const answers = await Promise.all(
      Array.from({ length: 50 }, async () => {
        const exchange = await origin.post(replay, { ...at, replay: true });
        expect([exchange.status, await exchange.done]).toMatchObject([
          200,
          { id: 'init', result: { protocolVersion: '2025-11-25' } },
        ]);
        return await origin.ask(act(1, 'echo', { value: 'x' }), at);
      }),
    );
    expect(answers).toHaveLength(50);
    // What it wrote before is here when this is.
    const before = logged('a line on stderr');
    await origin.ask(act(2, 'stderr'), at);
    await until(() => logged('a line on stderr') > before);
    expect(logged(`subscribed ${uri}`)).toBe(1);
    expect(logged(`level level-${at.session}`)).toBe(1);
  });

  test('a subscription that the server refuses now is given up, and the session goes on', async () => {
    const at = somebody();
    const replay = [initialize(), request('r', 'resources/subscribe', { uri: 'gone:1' })];
    expect((await origin.post(replay, { ...at, replay: true })).status).toBe(200);
    expect(await origin.ask(act(1, 'echo', { value: 'x' }), at)).toMatchObject({ result: {} });
  });

  test('in vain tells why, and can be tried again', async () => {
    const at = { ...somebody(), server: 'broken' };
    for (let attempt = 0; attempt < 2; attempt++) {
      const exchange = await origin.post([initialize()], { ...at, replay: true });
      await expect(exchange.done).rejects.toMatchObject({ error: { code: 'server_failed', data: { exitCode: 7 } } });
    }
  });

  test.each([
    ['no array', {}],
    ['an empty one', []],
    ['one without initialize', [request(1, 'ping')]],
    ['one with more than requests', [initialize(), { jsonrpc: '2.0', method: 'notifications/initialized' }]],
    ['an endless one', [initialize(), ...Array.from({ length: 300 }, (_, n) => request(n, 'ping'))]],
  ])('by %s is not', async (_, body) => {
    const exchange = await origin.post(body, { ...somebody(), replay: true });
    expect(exchange.status).toBe(400);
  });
});

describe('a session that the agent does not know', () => {
  test('ends without a word, and nothing starts for it', async () => {
    const started = origin.logged.length;
    await origin.end(somebody());
    await expect(origin.ask(request(1, 'tools/list'), somebody())).rejects.toMatchObject({
      error: { code: 'session_unknown' },
    });
    expect(origin.logged.length).toBe(started);
  });
});

describe('an answer that is the agent’s own', () => {
  test('is marked by a header, or by the name of its event; a server’s is not', async () => {
    const at = somebody();
    await origin.ask(initialize({ sampling: {} }), at);
    const plain = await origin.post(act(1, 'echo', { value: 'x' }), at);
    await plain.done;
    expect(plain.headers.has(FAILURE_HEADER)).toBe(false);
    const slow = origin.post(act(2, 'never'), at);
    const stream = await slow;
    const quick = origin.post(act(3, 'crash', { code: 4 }), at);
    expect((await quick).headers.get(FAILURE_HEADER)).toBe('outcome_unknown');
    await stream.done;
    expect(stream.names).toEqual([FAILURE_EVENT]);
    expect(stream.messages).toMatchObject([{ id: 2, error: { data: { code: 'outcome_unknown', exitCode: 4 } } }]);
  });
});

describe('a process that changes its lists', () => {
  test('says so with all that it answers, once it was called; while it starts it does not', async () => {
    const at = somebody();
    await origin.ask(initialize({ sampling: {} }), at);
    const marked = async (id: number) => {
      const exchange = await origin.post(request(id, 'tools/list'), at);
      await exchange.done;
      return exchange.headers.get(LISTS_HEADER);
    };
    expect(await marked(1)).toBeNull();
    const before = origin.unasked.length;
    await origin.ask(act(2, 'changed'), at);
    await until(() => origin.unasked.length > before);
    expect(await marked(3)).toBe('changed');
  });
});
