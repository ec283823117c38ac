/** A `subscriptions/listen` that shall wake nobody: it waits for the process, and starts none. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { WAKE_HEADER } from '../../shared/origin-api.ts';
import { META } from '../../shared/rev-2026-07-28.ts';
import {
  type Exchange,
  initialize,
  modern,
  type OriginUnderTest,
  request,
  startOrigin,
  textOf,
  until,
} from '../support/origin.ts';

const stdio = (script: string, more: object = {}) => ({
  runtime: 'process',
  command: 'node',
  args: [new URL(`../support/${script}`, import.meta.url).pathname],
  ...more,
});
const ASKABLE = { sampling: {} };
const URI = 'test://x';

let origin: OriginUnderTest;
beforeEach(async () => {
  origin = await startOrigin({
    legacy: stdio('scripted-server.mjs'),
    modern: stdio('modern-server.mjs'),
    alone: stdio('modern-server.mjs', { process: 'session' }),
  });
});
afterEach(() => origin.close());

const quiet = { headers: { [WAKE_HEADER]: 'no' }, modern: true };
const listen = async (server: string, session: string, capabilities: object = {}, signal?: AbortSignal) => {
  const notifications = { resourceSubscriptions: [URI] };
  const exchange = await origin.post(modern('L', 'subscriptions/listen', { notifications }, capabilities), {
    ...quiet,
    server,
    session,
    ...(signal ? { signal } : {}),
  });
  await until(() => exchange.messages.length > 0);
  return exchange;
};
const call = (server: string, session: string, args: object, capabilities: object = {}) =>
  origin.ask(modern(1, 'tools/call', { name: 'do', arguments: args }, capabilities), { server, session, modern: true });
/** Whether the legacy server was told of so many subscriptions. */
const subscribed = (times: number) =>
  logged('legacy').filter((line) => line === `[legacy] subscribed ${URI}`).length === times;
const logged = (server: string) => origin.logged.filter((line) => line.startsWith(`[${server}]`));
const _meta = { [META.subscriptionId]: 'L' };
const ACKNOWLEDGED = {
  jsonrpc: '2.0',
  method: 'notifications/subscriptions/acknowledged',
  params: { notifications: { resourceSubscriptions: [URI] }, _meta },
};
const UPDATED = { jsonrpc: '2.0', method: 'notifications/resources/updated', params: { uri: URI, _meta } };
/** What it heard up to its first update; the modern server tells everybody of its lists. */
const heard = async ({ messages }: Exchange) => {
  const but = () => messages.filter((each) => !('method' in each && each.method.endsWith('list_changed')));
  await until(() => but().length > 1);
  return but();
};

describe.each([
  ['legacy', { action: 'updated', uri: URI }],
  ['modern', { action: 'changed' }],
  ['alone', { action: 'changed' }],
])('at a server whose process is not there (%s)', (server, updates) => {
  test('is acknowledged at once, starts nothing, and hears what the first call changes', async () => {
    const listening = await listen(server, 'lane');
    expect([listening.messages, logged(server)]).toEqual([[ACKNOWLEDGED], []]);
    expect(textOf(await call(server, 'lane', updates))).toBe('said');
    expect(await heard(listening)).toEqual([ACKNOWLEDGED, UPDATED]);
  });

  test('whose client leaves is forgotten', async () => {
    const leaving = new AbortController();
    const gone = await listen(server, 'lane', {}, leaving.signal);
    leaving.abort();
    await gone.done.catch(() => undefined);
    const stays = await listen(server, 'lane');
    await call(server, 'lane', updates);
    expect([await heard(stays), gone.messages]).toEqual([[ACKNOWLEDGED, UPDATED], [ACKNOWLEDGED]]);
  });
});

describe('of another lane', () => {
  test.each([
    ['legacy', { action: 'updated', uri: URI }],
    ['modern', { action: 'changed' }],
  ])('hears the process that both share: %s', async (server, updates) => {
    const listening = await listen(server, 'lane');
    await call(server, 'other', { action: 'echo', value: 1 });
    if (server === 'legacy') await until(() => subscribed(1));
    await call(server, 'other', updates);
    expect(await heard(listening)).toEqual([ACKNOWLEDGED, UPDATED]);
    // Now that the process runs, one more is passed on to it.
    const late = await listen(server, 'third');
    if (server === 'legacy') await until(() => subscribed(2));
    await call(server, 'other', updates);
    expect(await heard(late)).toEqual([ACKNOWLEDGED, UPDATED]);
  });

  test('hears the process that it shares with sessions', async () => {
    const listening = await listen('legacy', 'lane');
    const at = { server: 'legacy', session: 'session' };
    await origin.ask(initialize(), at);
    await origin.ask(request(1, 'tools/call', { name: 'do', arguments: { action: 'echo', value: 1 } }), at);
    await until(() => subscribed(1));
    await origin.ask(request(2, 'tools/call', { name: 'do', arguments: { action: 'updated', uri: URI } }), at);
    expect(await heard(listening)).toEqual([ACKNOWLEDGED, UPDATED]);
  });

  test.each([
    ['legacy', ASKABLE],
    ['alone', {}],
  ])('starts no process of its own for it: %s', async (server, capabilities) => {
    await listen(server, 'lane', capabilities);
    const pid = textOf(await call(server, 'other', { action: 'pid' }, capabilities));
    expect(textOf(await call(server, 'lane', { action: 'pid' }, capabilities))).not.toBe(pid);
    const processes = logged(server).filter((line) => /called pid|capabilities \{"sampling/.test(line));
    expect(processes).toHaveLength(2);
  });
});

test('a lane has so many at most', async () => {
  await Promise.all(Array.from({ length: 100 }, () => listen('legacy', 'lane')));
  await listen('legacy', 'other');
  expect((await listen('legacy', 'lane')).messages).toMatchObject([{ error: { data: { code: 'overloaded' } } }]);
});
