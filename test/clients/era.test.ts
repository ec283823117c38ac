/** Conversations as they were recorded, and the era that is read from them. */
import { expect, test } from 'vitest';
import { eraOf, type Spoken } from './era.ts';

const meta = { _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28' } };
const post = (message: object, status = 200, answer: object | string = {}): Spoken => ({
  method: 'POST',
  requestBody: JSON.stringify({ jsonrpc: '2.0', id: 1, ...message }),
  status,
  responseHeaders: {},
  responseBody: typeof answer === 'string' ? answer : JSON.stringify(answer),
});
const get = (responseBody: string, status = 200): Spoken => ({
  method: 'GET',
  requestBody: '',
  status,
  responseHeaders: {},
  responseBody,
});
const discover = (status: number) => post({ method: 'server/discover', params: meta }, status);
const initialized = { jsonrpc: '2.0', id: 1, result: { protocolVersion: '2025-11-25' } };

test.each([
  ['nothing', [], undefined],
  ['a client that opens a session', [post({ method: 'initialize' }, 200, initialized)], '2025-11-25'],
  [
    'a session that is opened over an event stream',
    [post({ method: 'initialize' }, 200, `: open\n\nevent: message\ndata: ${JSON.stringify(initialized)}\n\n`)],
    '2025-11-25',
  ],
  [
    'a client that asks first and falls back',
    [discover(400), post({ method: 'initialize' }, 200, initialized)],
    '2025-11-25, probes first',
  ],
  ['a client without sessions', [discover(200), post({ method: 'tools/list', params: meta })], '2026-07-28'],
  ['a client that knows the revision', [post({ method: 'tools/list', params: meta })], '2026-07-28'],
  ['a client that is refused', [discover(400), post({ method: 'initialize' }, 401)], undefined],
  ['the transport of 2024-11-05', [get('event: endpoint\ndata: /messages?s=1\n\n')], '2024-11-05 over HTTP+SSE'],
  [
    'a newer revision over that transport',
    [get(`event: endpoint\ndata: /m\n\nevent: message\ndata: ${JSON.stringify(initialized)}\n\n`)],
    '2025-11-25 over HTTP+SSE',
  ],
  [
    'the stream of a session is no such transport',
    [post({ method: 'initialize' }, 200, initialized), get(': connected\n\n')],
    '2025-11-25',
  ],
] satisfies [string, Spoken[], string | undefined][])('%s', (_, exchanges, era) => {
  expect(eraOf(exchanges)).toBe(era);
});
