/** Batches of 2025-03-26 at a real edge. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { plain } from './scripted-origin.ts';

let edge: UnderTest;
beforeAll(async () => {
  edge = await edgeUnderTest({ time: new URL('../../servers/time.ts', import.meta.url).pathname });
  await (await edge.dial()).hello(['notes']);
});
beforeEach(() => {
  edge.origin.handler = plain;
  edge.origin.arrived.length = 0;
});
afterAll(() => edge.stop());

const opened = async (server: string) => {
  const wire =
    server === '/mcp' ? new WireClient(() => `${edge.url}/mcp`, '..') : new WireClient(() => edge.url, server);
  await wire.initialize();
  return wire;
};
const request = (id: number, method = 'ping') => ({ jsonrpc: '2.0', id, method });
const notification = { jsonrpc: '2.0', method: 'notifications/initialized' };

test.each(['notes', 'time', '/mcp'])('%s: every request is answered, on one stream', async (server) => {
  const wire = await opened(server);
  const response = await wire.post(JSON.stringify([request(1), notification, request(2), request(3, 'tools/list')]));
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/event-stream']);
  const reader = new EventReader(response);
  const ids: unknown[] = [];
  for (let message = await reader.message(); message; message = await reader.message()) {
    expect(message).toHaveProperty('result');
    ids.push(message.id);
  }
  expect(ids.sort()).toEqual([1, 2, 3]);
});

test('numbers that no double holds stay as they were written', async () => {
  const wire = await opened('notes');
  const call = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"v":12345678901234567890}}';
  let seen = '';
  edge.origin.handler = (arrived, response) => {
    seen = arrived.text;
    return plain(arrived, response);
  };
  await (await wire.post(`[${call}]`)).text();
  expect(seen).toBe(call);
});

test('notifications alone are taken with 202', async () => {
  const wire = await opened('notes');
  const response = await wire.post(JSON.stringify([notification, notification]));
  expect([response.status, await response.text()]).toEqual([202, '']);
  expect(edge.origin.arrived).toHaveLength(3);
});

test('a failure of one is an answer among the others', async () => {
  const wire = await opened('notes');
  edge.origin.handler = (arrived, response) =>
    'id' in arrived.message && arrived.message.id === 2 ? void response.socket?.destroy() : plain(arrived, response);
  const text = await (await wire.post(JSON.stringify([request(1), request(2, 'tools/call'), request(3)]))).text();
  expect(text).toContain('"code":"outcome_unknown"');
  expect(text.match(/"result"/g)).toHaveLength(2);
});

test.each([
  ['without a session', undefined, {}, 400, 'session_required'],
  ['of a session of nobody', 'A'.repeat(38), {}, 404, 'session_not_found'],
  ['under a later revision', undefined, { 'mcp-protocol-version': '2025-11-25' }, 400, 'invalid_request'],
])('%s it is refused as a whole', async (_, session, headers, status, code) => {
  const wire = new WireClient(() => edge.url, 'notes');
  wire.session = session;
  const response = await wire.post(JSON.stringify([request(1), request(2)]), headers as Record<string, string>);
  expect([response.status, await response.json()]).toMatchObject([status, { error: { data: { code } } }]);
  expect(edge.origin.arrived).toHaveLength(0);
});
