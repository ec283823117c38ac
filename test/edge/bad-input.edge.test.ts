/** Bad input at a real edge: each gets its code, none costs the session or the edge. */
import { connect } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { postModern } from './modern-client.ts';
import { plain } from './scripted-origin.ts';

let edge: UnderTest;
let wire: WireClient;
beforeAll(async () => {
  edge = await edgeUnderTest();
  await (await edge.dial()).hello(['notes']);
  wire = new WireClient(() => edge.url, 'notes');
  await wire.initialize();
});
beforeEach(() => {
  edge.origin.handler = plain;
  edge.origin.arrived.length = 0;
});
afterAll(() => edge.stop());

const alive = async () => expect(await wire.call('ping')).toMatchObject({ result: {} });

test.each<[string, string, number, number]>([
  ['a million open brackets', '['.repeat(1_000_000), 400, -32600],
  [
    'a deep value in a good message',
    `{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":${'['.repeat(600)}${']'.repeat(600)}}}`,
    400,
    -32600,
  ],
  ['an unfinished message', '{"jsonrpc":"2.0","id":1', 400, -32700],
  ['a NUL', '\0', 400, -32700],
  ['an empty body', '', 400, -32700],
  ['a batch of nothing', '[]', 400, -32600],
  ['a batch in a batch', '[[{"jsonrpc":"2.0","id":1,"method":"ping"}]]', 400, -32600],
  ['a fractional id', '{"jsonrpc":"2.0","id":1.5,"method":"ping"}', 400, -32600],
])('%s', async (_, body, status, code) => {
  const response = await wire.post(body);
  expect([response.status, await response.json()]).toMatchObject([status, { error: { code } }]);
  expect(edge.origin.arrived).toHaveLength(0);
  await alive();
});

test.each([
  ['_meta', '"_meta":1'],
  ['_meta', '"_meta":null'],
  ['_meta', '"_meta":["x"]'],
  ['_meta.progressToken', '"_meta":{"progressToken":{}}'],
  ['_meta.progressToken', '"_meta":{"progressToken":null}'],
  ['_meta.progressToken', '"_meta":{"progressToken":true}'],
  ['arguments', '"arguments":null'],
  ['arguments', '"arguments":["x"]'],
  ['arguments', '"arguments":12345678901234567891'],
])('params.%s that a server would drop without a word is refused: %s', async (where, member) => {
  const body = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x",${member}}}`;
  const response = await wire.post(body);
  expect([response.status, await response.json()]).toMatchObject([
    200,
    { id: 7, error: { code: -32602, message: expect.stringContaining(`"params.${where}" must be`) } },
  ]);
  expect(edge.origin.arrived).toHaveLength(0);
  await alive();
});

test('a progress token that no double holds is one', async () => {
  const params = '{"name":"x","arguments":{},"_meta":{"progressToken":12345678901234567891}}';
  const response = await wire.post(`{"jsonrpc":"2.0","id":8,"method":"tools/call","params":${params}}`);
  expect(await response.json()).toMatchObject({ id: 8, result: {} });
});

test.each([
  ['another method', { 'mcp-method': 'tools/list' }],
  ['another name', { 'mcp-name': 'y' }],
  ['a name that cannot be decoded', { 'mcp-name': '=?base64?=?=' }],
  ['another revision', { 'mcp-protocol-version': '2025-11-25' }],
])('a header that names %s than the body never reaches the origin', async (_, headers) => {
  const response = await postModern(
    `${edge.url}/notes/mcp`,
    'tools/call',
    { name: 'x' },
    { id: 'h', headers: headers as Record<string, string> },
  );
  expect([response.status, await response.json()]).toMatchObject([400, { id: 'h', error: { code: -32020 } }]);
  expect(edge.origin.arrived).toHaveLength(0);
});

test('requests in one pipeline that is cut: the edge and the session live on', async () => {
  const { hostname, port, host } = new URL(edge.url);
  const body = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}';
  const request = [
    'POST /notes/mcp HTTP/1.1',
    `Host: ${host}`,
    'Accept: application/json, text/event-stream',
    'Content-Type: application/json',
    `Mcp-Session-Id: ${wire.session}`,
    `Content-Length: ${body.length}`,
    '',
    body,
  ].join('\r\n');
  const cut = (bytes: string, after: number) =>
    new Promise<void>((resolve) => {
      const socket = connect(Number(port), hostname, () => {
        socket.write(bytes);
        setTimeout(() => socket.destroy(), after);
      });
      socket.once('error', () => undefined);
      socket.once('close', () => resolve());
    });
  await Promise.all([
    ...Array.from({ length: 20 }, (_, n) => cut(request.repeat(5), n)),
    ...Array.from({ length: 20 }, (_, n) => cut(request.slice(0, -n - 1), n)),
    cut('\r\n\r\nGARBAGE\0\r\n', 50),
  ]);
  await alive();
});
