/** A stdio server that writes what no server should: the call it concerns fails, memory stays bounded, the session lives on. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { initialize, modern, type OriginUnderTest, request, startOrigin, textOf } from '../support/origin.ts';

const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const at = { session: 's', server: 'scripted' };
const MiB = 1 << 20;

let origin: OriginUnderTest;
beforeAll(async () => {
  origin = await startOrigin({ scripted: { runtime: 'process', command: 'node', args: [SCRIPT] } });
  await origin.ask(initialize({ sampling: {} }), at);
});
afterAll(async () => await origin.close());

const call = (id: string | number, args: object) => request(id, 'tools/call', { name: 'do', arguments: args });
const isAlive = async () => {
  expect(textOf(await origin.ask(call('alive', { action: 'echo', value: 'alive' }), at))).toBe('alive');
  const lane = { session: 'lane', server: 'scripted', modern: true };
  const sent = modern('alive', 'tools/call', { name: 'do', arguments: { action: 'echo', value: 'alive' } });
  expect(textOf(await origin.ask(sent, lane))).toBe('alive');
};

test.each([
  ['a line without end', 'endless', 400 * MiB],
  ['lines that are no messages', 'lines', 50 * MiB],
  ['notifications without end', 'notes', 50 * MiB],
])('%s', async (_what, of, bytes) => {
  const before = process.memoryUsage().rss;
  expect(textOf(await origin.ask(call(1, { action: 'flood', of, bytes }), at))).toBe('flooded');
  expect(process.memoryUsage().rss - before).toBeLessThan(300 * MiB);
  expect(origin.logged.length).toBeLessThan(5_000);
  origin.unasked.length = 0;
  await isAlive();
});

describe('an answer that cannot be passed on fails its call', () => {
  test.each([
    ['nested too deep', { action: 'deep', levels: 200_000 }],
    ['an error without a code', raw('{"jsonrpc":"2.0","id":ID,"error":{}}')],
    ['a result that is no object', raw('{"jsonrpc":"2.0","id":ID,"result":[1]}')],
  ])('%s', async (_what, args) => {
    expect(await origin.ask(call(2, args), at)).toMatchObject({ id: 2, error: { data: { code: 'server_failed' } } });
    await isAlive();
  });

  test('one that is nested deep, and not too deep, crosses', async () => {
    expect(await origin.ask(call(3, { action: 'deep', levels: 500 }), at)).toMatchObject({
      id: 3,
      result: { a: { a: {} } },
    });
  });
});

describe('odd text crosses as text', () => {
  const answer = (text: string) =>
    raw(`{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":${text}}]}}`);

  test.each([
    ['lone surrogates', answer('"a\\ud800b"'), 'a\ud800b'],
    ['invalid UTF-8', answer('"a\xff\xfeb"'), 'a\ufffd\ufffdb'],
    ['control characters that JSON may hold', answer('"\\u0000\\u001b[31m"'), '\u0000\u001b[31m'],
    ['line separators of other standards', answer('"\\u2028\\u0085"'), '\u2028\u0085'],
    ['a carriage return at the end', raw('{"jsonrpc":"2.0","id":ID,"result":{"content":[{"text":"r"}]}}\r'), 'r'],
  ])('%s', async (_what, args, text) => {
    expect(textOf(await origin.ask(call(4, args), at))).toBe(text);
    await isAlive();
  });

  test('members named as those of every object are members', async () => {
    const args = raw(
      '{"jsonrpc":"2.0","id":ID,"__proto__":{"polluted":1},"result":{"__proto__":{"polluted":1},"constructor":1,"content":[]}}',
    );
    const { result } = (await origin.ask(call(5, args), at)) as { result: object };
    expect(Object.keys(result)).toContain('constructor');
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    await isAlive();
  });
});

describe('a notification whose members are neither texts nor numbers', () => {
  const trap = '{"toString":1,"valueOf":1,"toJSON":1}';
  const fine = '{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"fine"}]}}';

  test.each([
    ['progress', `{"progressToken":${trap},"progress":${trap},"total":${trap},"message":${trap}}`],
    ['progress', '{"progressToken":9007199254740993,"progress":1}'],
    ['message', `{"level":${trap},"logger":${trap},"data":${trap}}`],
    ['cancelled', `{"requestId":${trap},"reason":${trap}}`],
    ['resources/updated', `{"uri":${trap}}`],
    ['tools/list_changed', trap],
    ['tasks/status', `{"taskId":${trap},"status":${trap},"ttl":${trap}}`],
    ['elicitation/complete', `{"elicitationId":${trap}}`],
    [
      'subscriptions/acknowledged',
      `{"_meta":{"io.modelcontextprotocol/subscriptionId":${trap}},"notifications":${trap}}`,
    ],
  ])('%s %s is passed on or dropped, and ends nothing', async (name, params) => {
    const args = raw(`{"jsonrpc":"2.0","method":"notifications/${name}","params":${params}}\n${fine}`);
    expect(textOf(await origin.ask(call(6, args), at))).toBe('fine');
    const lane = { session: 'lane', server: 'scripted', modern: true };
    expect(textOf(await origin.ask(modern('6', 'tools/call', { name: 'do', arguments: args }), lane))).toBe('fine');
    await isAlive();
  });
});

/** `latin1`, so that every byte can be said. */
function raw(text: string) {
  return { action: 'raw', base64: Buffer.from(text, 'latin1').toString('base64') };
}
