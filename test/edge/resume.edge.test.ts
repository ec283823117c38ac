/** Streams that broke: what a client gets that comes back with `Last-Event-ID`, and what it is told when there is nothing. */
import type { ServerResponse } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { type Handler, json, plain, result, type ScriptedLink } from './scripted-origin.ts';

const STEPPING = new URL('./stepping-server.ts', import.meta.url).pathname;

let edge: UnderTest;
let link: ScriptedLink;
const dial = async (epoch: string) => {
  link = await edge.dial();
  await link.hello(['notes'], epoch);
};
beforeAll(async () => {
  edge = await edgeUnderTest({ stepping: STEPPING });
  await dial('epoch-0001');
});
beforeEach(() => {
  edge.origin.handler = plain;
  edge.origin.arrived.length = 0;
  edge.origin.resumed.length = 0;
  edge.origin.onResume = (_, response) =>
    json(response, { error: { code: 'stream_unknown', message: 'scripted', data: {} } }, 404);
});
afterAll(() => edge.stop());

const opened = async (server = 'notes', revision?: string) => {
  const wire = new WireClient(() => edge.url, server);
  await (await wire.initialize(revision)).text();
  return wire;
};
const callTool = { jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name: 'x' } } as const;
const step = (args: object, id: string | number = 9) =>
  ({ jsonrpc: '2.0', id, method: 'tools/call', params: { name: 'step', arguments: args } }) as const;
const progress = (n: number) => ({ jsonrpc: '2.0', method: 'notifications/progress', params: { progress: n } });
const STREAM = 'AbCdEfGh12345678';
const numbered = (n: number, message: unknown) =>
  `id: o.${STREAM}.${n}\nevent: message\ndata: ${JSON.stringify(message)}\n\n`;
const primed = `id: o.${STREAM}.0\nretry: 3000\ndata: \n\n`;
const begin = (response: ServerResponse, text: string, then?: () => void) => {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(text, then);
};
const whole = (response: ServerResponse, text: string) => {
  begin(response, text);
  response.end();
};
/** Answers a tool's call; the rest plainly. */
const calls =
  (handler: Handler): Handler =>
  (arrived, response) =>
    'method' in arrived.message && arrived.message.method === 'tools/call'
      ? handler(arrived, response)
      : plain(arrived, response);

/** The rest of a stream: its messages, and the last id. */
async function rest(reader: EventReader, upTo = Number.POSITIVE_INFINITY) {
  const messages: Record<string, unknown>[] = [];
  let lastId = '';
  while (messages.length < upTo) {
    const block = await reader.block();
    if (block === null) break;
    lastId = /^id: (.*)$/m.exec(block)?.[1] ?? lastId;
    const data = /^data: (.+)$/m.exec(block)?.[1];
    if (data) messages.push(JSON.parse(data) as Record<string, unknown>);
  }
  return { messages, lastId };
}
const resume = (wire: WireClient, id: string) => wire.get({ 'last-event-id': id });
const data = (messages: readonly Record<string, unknown>[]) =>
  messages.map(
    (message) => (message.params as { data?: number } | undefined)?.data ?? (message.result ? 'result' : message),
  );
const refusal = async (response: Response) => [
  response.status,
  response.headers.get('allow'),
  ((await response.json()) as { error: { data: { code: string } } }).error.data.code,
];
const NOTHING = [405, 'POST, DELETE, OPTIONS', 'method_not_allowed'];

describe('a call at an origin', () => {
  test('goes on from its last event, until its response, with the grant and the revision of its session', async () => {
    const wire = await opened();
    const gate = Promise.withResolvers<void>();
    edge.origin.onResume = async (_, response) => {
      begin(response, numbered(3, progress(3)));
      await gate.promise;
      response.end(numbered(4, result(callTool)));
    };
    const reader = new EventReader(await resume(wire, `o.${STREAM}.2`));
    expect(await reader.message()).toEqual(progress(3));
    gate.resolve();
    expect(await rest(reader)).toEqual({ messages: [result(callTool)], lastId: `o.${STREAM}.4` });
    const [{ at, grant, headers } = expect.fail('nothing was asked')] = edge.origin.resumed;
    expect([at, grant.session, headers['moorage-revision']]).toEqual([`${STREAM}?after=2`, wire.session, '2025-11-25']);
  });

  test('nothing to resume is a refusal that clients take in peace: unknown to the origin, or ended', async () => {
    const wire = await opened();
    expect(await refusal(await resume(wire, `o.${STREAM}.2`))).toEqual(NOTHING);
    edge.origin.onResume = (_, response) => void response.writeHead(204).end();
    expect(await refusal(await resume(wire, `o.${STREAM}.2`))).toEqual(NOTHING);
  });

  test('a session of nobody is not found before any origin is asked', async () => {
    const wire = new WireClient(() => edge.url, 'notes');
    wire.session = 'A'.repeat(38);
    expect((await resume(wire, `o.${STREAM}.2`)).status).toBe(404);
    expect(edge.origin.resumed).toEqual([]);
  });

  test('a connection to the origin that breaks is mended behind the client’s back, as often as it breaks', async () => {
    const wire = await opened();
    edge.origin.handler = calls((_, response) =>
      begin(response, primed + numbered(1, progress(1)) + numbered(2, progress(2)).slice(0, -9), () =>
        response.socket?.destroy(),
      ),
    );
    edge.origin.onResume = ({ at }, response) =>
      at.endsWith('=1')
        ? begin(response, numbered(2, progress(2)), () => response.socket?.destroy())
        : whole(response, numbered(3, result(callTool)));
    const { messages } = await rest(new EventReader(await wire.post(callTool)));
    expect(messages).toEqual([progress(1), progress(2), result(callTool)]);
    expect(edge.origin.resumed.map(({ at }) => at)).toEqual([`${STREAM}?after=1`, `${STREAM}?after=2`]);
  });

  test('an origin that is away for a moment is waited for', async () => {
    const wire = await opened();
    edge.origin.onResume = (_, response) => whole(response, numbered(3, result(callTool)));
    await edge.origin.close();
    const coming = resume(wire, `o.${STREAM}.2`);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await edge.origin.listen();
    expect((await rest(new EventReader(await coming))).messages).toEqual([result(callTool)]);
  });

  test('the edge killed with -9 in the middle: the client gets the rest from the next one', async () => {
    const wire = await opened();
    edge.origin.handler = calls((_, response) => begin(response, primed + numbered(1, progress(1))));
    const reader = new EventReader(await wire.post(callTool));
    const before = await rest(reader, 1);
    await edge.restart('SIGKILL');
    await dial('epoch-0002');
    edge.origin.onResume = (_, response) => whole(response, numbered(2, result(callTool)));
    const after = await rest(new EventReader(await resume(wire, before.lastId)));
    expect([...before.messages, ...after.messages]).toEqual([progress(1), result(callTool)]);
    expect(edge.origin.resumed.map(({ at }) => at)).toEqual([`${STREAM}?after=1`]);
  });

  test.each([
    ['application/json, text/event-stream', undefined],
    ['text/event-stream, application/json', 'stream'],
    ['application/json;q=0.5, text/event-stream', 'stream'],
    ['text/event-stream;q=0.1, application/json', undefined],
    ['*/*', undefined],
  ])('Accept: %s asks the origin for %s', async (accept, prefer) => {
    const wire = await opened();
    await wire.post(callTool, { accept });
    expect(edge.origin.arrived.at(-1)?.headers['moorage-prefer']).toBe(prefer);
  });
});

describe('a call of an edge server', () => {
  test('goes on without its client, who gets the rest: every message once, in order', async () => {
    const wire = await opened('stepping');
    const reader = new EventReader(await wire.post(step({ steps: 6, ms: 150 })));
    const before = await rest(reader, 2);
    await reader.cancel();
    await new Promise((resolve) => setTimeout(resolve, 300));
    const after = await rest(new EventReader(await resume(wire, before.lastId)));
    expect(data([...before.messages, ...after.messages])).toEqual([1, 2, 3, 4, 5, 6, 'result']);
    expect(await refusal(await resume(wire, after.lastId))).toEqual(NOTHING);
  });

  test('its stream begins with an id and no data, unless the revision is older: then no event is without data', async () => {
    const blocks = async (revision: string) => {
      const wire = await opened('stepping', revision);
      return (await (await wire.post(step({ steps: 1, ms: 300 }))).text()).split('\n\n');
    };
    expect((await blocks('2025-11-25'))[0]).toMatch(/^id: e\.[\w-]+\.0\nretry: 3000\ndata: $/);
    const older = await blocks('2025-06-18');
    expect(older.filter((block) => !/^(:|$)/.test(block) && !/^data: \{/m.test(block))).toEqual([]);
    expect(older.join()).toMatch(/id: e\.[\w-]+\.1\n/);
  });

  test('another session does not find it', async () => {
    const [wire, other] = [await opened('stepping'), await opened('stepping')];
    const { lastId } = await rest(new EventReader(await wire.post(step({ steps: 2, ms: 200 }))), 1);
    expect(await refusal(await resume(other, lastId))).toEqual(NOTHING);
  });

  test('a result of 5 MB comes back whole', async () => {
    const wire = await opened('stepping');
    const reader = new EventReader(await wire.post(step({ steps: 1, ms: 300, bytes: 5_000_000 })));
    const { lastId } = await rest(reader, 1);
    await reader.cancel();
    const { messages } = await rest(new EventReader(await resume(wire, lastId)));
    const [{ result: got } = {}] = messages as { result?: { content: { text: string }[] } }[];
    expect(got?.content[0]?.text.length).toBe(5_000_004);
  });

  test('the edge killed with -9: what had ended is replayed, what was running has an unknown outcome', async () => {
    const wire = await opened('stepping');
    const ended = await rest(new EventReader(await wire.post(step({ steps: 1, ms: 300 }, 'ended'))));
    const running = await rest(new EventReader(await wire.post(step({ steps: 50, ms: 200 }, 'running'))), 2);
    await edge.restart('SIGKILL');
    await dial('epoch-0003');
    const again = await rest(new EventReader(await resume(wire, ended.lastId.replace(/\d+$/, '0'))));
    expect(again.messages).toEqual(ended.messages);
    const lost = await rest(new EventReader(await resume(wire, running.lastId)));
    const last = lost.messages.at(-1);
    expect(last).toMatchObject({ id: 'running', error: { data: { code: 'outcome_unknown', cause: 'edge_gone' } } });
    expect(await refusal(await resume(wire, lost.lastId))).toEqual(NOTHING);
  });
});

describe('the stream of a session', () => {
  let seq = 0;
  const changed = (n: number) => ({ jsonrpc: '2.0', method: 'notifications/tools/list_changed', params: { n } });
  const say = async (wire: WireClient, n: number) => {
    link.send({ type: 'event', seq: ++seq, sessions: [wire.session], message: changed(n) });
    expect(await link.next()).toMatchObject({ type: 'ack', seq });
  };
  const numbers = ({ messages }: { messages: readonly Record<string, unknown>[] }) =>
    messages.map(({ params }) => (params as { n: number }).n);
  beforeAll(async () => {
    link.close();
    await dial('epoch-0004');
  });

  test('what a half-dead connection swallowed, and what came while there was none, is sent again: once each', async () => {
    const wire = await opened();
    const dead = new EventReader(await wire.get());
    for (const n of [1, 2, 3]) await say(wire, n);
    const got = await rest(dead, 1);
    await dead.cancel();
    await say(wire, 4);
    const reader = new EventReader(await resume(wire, got.lastId));
    await say(wire, 5);
    expect([...numbers(got), ...numbers(await rest(reader, 4))]).toEqual([1, 2, 3, 4, 5]);
  });

  test('a client that was told nothing yet loses nothing either', async () => {
    const wire = await opened();
    const reader = new EventReader(await wire.get());
    expect(await reader.block()).toBe(': connected');
    const id = /^id: (.*)$/m.exec((await reader.block()) ?? '')?.[1] ?? expect.fail('no id');
    await say(wire, 1);
    await reader.cancel();
    expect(numbers(await rest(new EventReader(await resume(wire, id)), 1))).toEqual([1]);
  });

  test('a fresh stream takes over: the older one cannot be resumed, and its messages go nowhere else', async () => {
    const wire = await opened();
    const older = new EventReader(await wire.get());
    await say(wire, 1);
    const { lastId } = await rest(older, 1);
    const fresh = new EventReader(await wire.get());
    await say(wire, 2);
    expect(numbers(await rest(fresh, 1))).toEqual([2]);
    expect(await refusal(await resume(wire, lastId))).toEqual(NOTHING);
  });

  test('the edge killed with -9 takes nothing of it along', async () => {
    const wire = await opened();
    const reader = new EventReader(await wire.get());
    for (const n of [1, 2]) await say(wire, n);
    const got = await rest(reader, 1);
    await edge.restart('SIGKILL');
    seq = 0;
    await dial('epoch-0005');
    await say(wire, 3);
    expect(numbers(await rest(new EventReader(await resume(wire, got.lastId)), 2))).toEqual([2, 3]);
  });

  test('a call’s response never goes there, and an id that is not ours opens a fresh stream', async () => {
    const wire = await opened();
    const reader = new EventReader(await resume(wire, 'of another server'));
    await say(wire, 1);
    expect(numbers(await rest(reader, 1))).toEqual([1]);
  });
});

describe('streams that are ended when they are silent', () => {
  let polling: UnderTest;
  beforeAll(async () => {
    polling = await edgeUnderTest({ stepping: STEPPING }, { endIdleAfterMs: 500 });
    const ready = await polling.dial();
    await ready.hello(['notes']);
  });
  afterAll(() => polling.stop());
  const wireTo = async (server: string, revision?: string) => {
    const wire = new WireClient(() => polling.url, server);
    await (await wire.initialize(revision)).text();
    return wire;
  };

  test('a call at an origin: the stream ends with an id, and the client is asked back soon', async () => {
    const wire = await wireTo('notes');
    polling.origin.handler = calls((_, response) => begin(response, primed + numbered(1, progress(1))));
    const text = await (await wire.post(callTool)).text();
    expect(text).toBe(`${primed}${numbered(1, progress(1))}id: o.${STREAM}.1\nretry: 500\ndata: \n\n`);
    polling.origin.onResume = (_, response) => {
      begin(response, ': keep-alive\n\n');
      setTimeout(() => response.end(numbered(2, result(callTool))), 1_500);
    };
    expect((await rest(new EventReader(await resume(wire, `o.${STREAM}.1`)))).messages).toEqual([result(callTool)]);
  });

  test('a call of an edge server: the rest comes to the client that comes back, however long it is silent', async () => {
    const wire = await wireTo('stepping');
    const before = await rest(new EventReader(await wire.post(step({ steps: 2, ms: 1500 }))));
    expect(data(before.messages)).toEqual([1]);
    const after = await rest(new EventReader(await resume(wire, before.lastId)));
    expect(data(after.messages)).toEqual([2, 'result']);
  });

  test('clients of older revisions do not come back, so their streams stay', async () => {
    const wire = await wireTo('stepping', '2025-06-18');
    const { messages } = await rest(new EventReader(await wire.post(step({ steps: 2, ms: 1500 }))));
    expect(data(messages)).toEqual([1, 2, 'result']);
  });
});
