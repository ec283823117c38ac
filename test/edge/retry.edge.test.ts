/** Calls that are lost on their way: which are repeated, and what the client is told of the others. */
import type { ServerResponse } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { FAILURE_EVENT, FAILURE_HEADER } from '../../shared/origin-api.ts';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { fresh, lists } from './listing-origin.ts';
import { type Arrived, event, json, plain, result } from './scripted-origin.ts';

let edge: UnderTest;
let wire: WireClient;
/** What becomes of the first, second … call. */
let fates: ((arrived: Arrived, response: ServerResponse) => void)[];
let executed: number;
beforeAll(async () => {
  edge = await edgeUnderTest();
  const link = await edge.dial();
  await link.hello(['notes'], 'epoch-0001', { discovery: { copies: 'all', maxAgeS: 3600 } });
  edge.origin.handler = (arrived, response) => {
    if (lists(fresh(), arrived, response)) return;
    const fate = fates.shift();
    if (!fate) return plain(arrived, response);
    executed++;
    return fate(arrived, response);
  };
  wire = new WireClient(() => edge.url, 'notes');
  fates = [];
  await wire.initialize();
  for (const params of [{}, { cursor: 'two' }]) await wire.call('tools/list', params);
  // The list is stored behind its answer.
  while ((await call('again', [breaks, answers('stored')])).left > 0);
});
beforeEach(() => {
  executed = 0;
});
afterAll(() => edge.stop());

const STREAM = { 'content-type': 'text/event-stream' };
type Fate = (typeof fates)[number];
const progress = event({ jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: 1 } });
const failure = (cause: string, code = 'outcome_unknown') => ({
  jsonrpc: '2.0',
  id: 9,
  error: { code: -32000, message: `scripted ${cause}`, data: { code, cause, retryable: false } },
});
const done = (value: string) => ({ jsonrpc: '2.0', id: 9, result: { value } });

const answers =
  (value: string): Fate =>
  ({ message }, response) =>
    json(response, result(message, { value }));
const streams =
  (...parts: string[]): Fate =>
  (_, response) =>
    void response.writeHead(200, STREAM).end(parts.join(''));
const breaks: Fate = (_, response) => void response.socket?.destroy();
const breaksWithinJson: Fate = (_, response) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.write('{"jsonrpc":', () => response.socket?.destroy());
};
const breaksSilently: Fate = (_, response) => {
  response.writeHead(200, STREAM);
  response.write(': keep-alive\n\nid: o.streamname.0\nretry: 1\ndata: \n\n', () => response.socket?.destroy());
};
const breaksAfterProgress: Fate = (_, response) => {
  response.writeHead(200, STREAM);
  response.write(progress, () => response.socket?.destroy());
};
const marked =
  (cause: string): Fate =>
  (_, response) => {
    response.setHeader(FAILURE_HEADER, 'outcome_unknown');
    json(response, failure(cause));
  };
const markedEvent = (cause: string) =>
  streams(': keep-alive\n\n', `event: ${FAILURE_EVENT}\ndata: ${JSON.stringify(failure(cause))}\n\n`);

async function call(name: string, coming: Fate[]) {
  fates = [...coming];
  const response = await wire.post({ jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name } });
  const messages: unknown[] = [];
  if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
    const reader = new EventReader(response);
    for (let message = await reader.message(); message; message = await reader.message()) messages.push(message);
  } else messages.push(await response.json());
  return { messages, left: fates.length };
}

const losses: [string, Fate, string][] = [
  ['the connection breaks before the headers', breaks, 'connection_lost'],
  ['the connection breaks within JSON', breaksWithinJson, 'connection_lost'],
  ['the stream breaks before any message', breaksSilently, 'connection_lost'],
  ['the stream ends in peace without one', streams(': hi\n\n'), 'connection_lost'],
  ['the agent says so in JSON', marked('server_exited'), 'server_exited'],
  ['the agent says so in a stream', markedEvent('machine_gone'), 'machine_gone'],
];

describe.each(losses)('%s', (_, loss, cause) => {
  test.each(['look', 'again'])('a tool that may be repeated (%s) is, and the client sees one answer', async (name) => {
    expect(await call(name, [loss, answers('second')])).toEqual({ messages: [done('second')], left: 0 });
    expect(executed).toBe(2);
  });

  test('a stream may follow, with all that it says', async () => {
    const { messages } = await call('look', [loss, streams(progress, event(done('second')))]);
    expect(messages).toMatchObject([{ method: 'notifications/progress' }, done('second')]);
  });

  test('it is repeated once: then the client is told, and that it may try again', async () => {
    const { messages, left } = await call('look', [loss, loss, answers('third')]);
    expect(messages).toMatchObject([{ id: 9, error: { data: { code: 'outcome_unknown', cause, retryable: true } } }]);
    expect(left).toBe(1);
  });

  test('any other tool runs once, and the client is told that nobody knows', async () => {
    const { messages, left } = await call('write', [loss, answers('second')]);
    expect(messages).toMatchObject([{ id: 9, error: { data: { code: 'outcome_unknown', cause, retryable: false } } }]);
    expect(left).toBe(1);
    expect(executed).toBe(1);
  });

  test('a tool that was never listed runs once', async () => {
    expect((await call('unheard', [loss, answers('second')])).left).toBe(1);
  });
});

describe('what the client has seen is not begun anew', () => {
  test.each([
    ['a stream that breaks', breaksAfterProgress],
    ['a failure of the agent', streams(progress, `event: ${FAILURE_EVENT}\ndata: ${JSON.stringify(failure('x'))}\n\n`)],
  ])('%s after a message', async (_, loss) => {
    const { messages, left } = await call('look', [loss, answers('second')]);
    expect(messages).toMatchObject([
      { method: 'notifications/progress' },
      { id: 9, error: { data: { code: 'outcome_unknown', retryable: true } } },
    ]);
    expect(left).toBe(1);
  });
});

describe('only the agent’s own word counts', () => {
  const lookalike = failure('server_exited');

  test.each([
    ['JSON', (({ message: _ }, response) => json(response, lookalike)) satisfies Fate],
    ['a stream', streams(event(lookalike))],
    ['a stream whose text names the event', streams(event({ ...lookalike, note: `\nevent: ${FAILURE_EVENT}\n` }))],
  ])('a server’s error that looks like it passes as it is: %s', async (_, fate) => {
    const { messages, left } = await call('look', [fate, answers('second')]);
    expect(messages).toMatchObject([lookalike]);
    expect(left).toBe(1);
  });

  test('another failure of the agent passes, under the name that clients read', async () => {
    const other = failure('too large', 'server_failed');
    const fate = streams(`event: ${FAILURE_EVENT}\ndata: ${JSON.stringify(other)}\n\n`);
    expect(await call('look', [fate, answers('second')])).toEqual({ messages: [other], left: 1 });
  });

  test('a call that its client cancelled is not repeated', async () => {
    for (const fate of [marked('cancelled'), markedEvent('cancelled')]) {
      expect((await call('look', [fate, answers('second')])).left).toBe(1);
    }
  });
});
