/** The agent's interface to streams: how an answer becomes one, and who gets to resume it. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseEventId } from '../../shared/event-stream.ts';
import { PREFER_HEADER, REVISION_HEADER, STREAMS_PATH } from '../../shared/origin-api.ts';
import { type Exchange, type OriginUnderTest, startOrigin } from '../support/origin.ts';

const SERVER = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
let origin: OriginUnderTest;
beforeAll(async () => {
  origin = await startOrigin({ scripted: { runtime: 'process', command: process.execPath, args: [SERVER] } });
});
afterAll(() => origin.close());

const revision = { [REVISION_HEADER]: '2025-11-25' };
const stream = { ...revision, [PREFER_HEADER]: 'stream' };
const within = (session: string, headers: Record<string, string> = revision) => ({
  session,
  server: 'scripted',
  headers,
});
const opened = async (session: string) => {
  const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } };
  await origin.ask({ jsonrpc: '2.0', id: 0, method: 'initialize', params }, within(session));
  return session;
};
const call = (args: object) => ({
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/call',
  params: { name: 'do', arguments: args, _meta: { progressToken: 'p' } },
});
const pathOf = (exchange: Exchange) => (n: number) =>
  `${STREAMS_PATH}${parseEventId(exchange.ids[0] ?? '')?.stream}?after=${n}`;
/** A call that is over, and where its stream is. */
async function ended(session: string): Promise<{ at: (n: number) => string; last: number }> {
  const exchange = await origin.post(call({ action: 'progress', steps: 2 }), within(session, stream));
  await exchange.done;
  return { at: pathOf(exchange), last: exchange.messages.length };
}

test('a quick answer is JSON, unless a stream is preferred', async () => {
  const session = await opened('quick');
  const echo = call({ action: 'echo', value: 'x' });
  expect((await origin.post(echo, within(session))).contentType).toBe('application/json');
  expect((await origin.post(echo, within(session, stream))).contentType).toBe('text/event-stream');
});

test('an ended stream is replayed from any event, and is empty after its last', async () => {
  const session = await opened('ended');
  const { at, last } = await ended(session);
  const ns = async (after: number) => {
    const text = await (await origin.get(at(after), within(session))).text();
    return [...text.matchAll(/^id: o\.[\w-]+\.(\d+)$/gm)].map(([, n]) => Number(n));
  };
  expect([await ns(0), await ns(1), await ns(2)]).toEqual([
    [0, 1, 2, 3],
    [1, 2, 3],
    [2, 3],
  ]);
  expect([(await origin.get(at(last), within(session))).status, last]).toEqual([204, 3]);
});

test('another session, a place that never was, and a session that ended find nothing', async () => {
  const [session, other] = [await opened('mine'), await opened('other')];
  const { at } = await ended(session);
  const refusal = async (path: string, as: string) => {
    const response = await origin.get(path, within(as));
    return [response.status, ((await response.json()) as { error: { code: string } }).error.code];
  };
  const unknown = [404, 'stream_unknown'];
  expect(await refusal(at(0), other)).toEqual(unknown);
  expect(await refusal(at(99), session)).toEqual(unknown);
  expect(await refusal(at(Number.NaN), session)).toEqual(unknown);
  await origin.end(within(session));
  expect(await refusal(at(0), session)).toEqual(unknown);
});

test('a running call is followed to its end by whoever came last', async () => {
  const session = await opened('running');
  const enough = join(mkdtempSync(join(tmpdir(), 'moorage-steps-')), 'enough');
  const steps = call({ action: 'step', steps: 6, ms: 10, until: enough });
  const exchange = await origin.post(steps, within(session, stream));
  await expect.poll(() => exchange.messages.length).toBeGreaterThan(2);
  const following = await origin.get(pathOf(exchange)(2), within(session));
  writeFileSync(enough, '');
  const rest = await following.text();
  const seen = [...rest.matchAll(/"progress":(\d+)/g)].map(([, n]) => Number(n));
  expect(seen.slice(0, 4)).toEqual([3, 4, 5, 6]);
  expect(seen).toEqual(seen.map((_, index) => index + 3));
  expect(rest).toContain('"text":"done"');
  await expect(exchange.done).rejects.toThrow();
});
