/** Discovery from copies: what reaches the origin, what does not, and when a copy is not believed any more. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { fresh, type Listing, lists } from './listing-origin.ts';
import { plain, refuse, type ScriptedLink } from './scripted-origin.ts';

const CACHED = { discovery: { copies: 'all', maxAgeS: 3600 } } as const;

let edge: UnderTest;
let link: ScriptedLink;
let listing: Listing;
let seq: number;
/** Sessions that have a process at the origin. */
let held: Set<string>;
beforeEach(async () => {
  listing = fresh();
  seq = 0;
  held = new Set();
  edge = await edgeUnderTest();
  link = await edge.dial();
  await link.hello(['notes'], 'epoch-0001', CACHED);
  edge.origin.handler = (arrived, response) => {
    const { session } = arrived.grant;
    const opens = 'method' in arrived.message && arrived.message.method === 'initialize';
    if (opens) held.add(session);
    else if (!held.has(session)) return refuse(response, 409, 'session_unknown');
    if (!lists(listing, arrived, response)) return plain(arrived, response);
  };
});
afterEach(() => edge.stop());

const initialized = { jsonrpc: '2.0', method: 'notifications/initialized' } as const;
const open = async () => {
  const wire = new WireClient(() => edge.url, 'notes');
  const answer = (await (await wire.initialize()).json()) as Record<string, unknown>;
  expect((await wire.post(initialized)).status).toBe(202);
  return { wire, answer };
};
const listAll = async (wire: WireClient) => [
  await wire.call('tools/list'),
  await wire.call('tools/list', { cursor: 'two' }),
  await wire.call('prompts/list'),
  await wire.call('resources/list'),
];
const filled = async () => {
  const { wire, answer } = await open();
  const pages = await listAll(wire);
  // Copies are stored behind the answers.
  await expect.poll(async () => (await arrivedDuring(async () => listAll((await open()).wire))).length).toBe(0);
  return { wire, answer, pages };
};
const arrivedDuring = async (act: () => Promise<unknown>) => {
  const before = edge.origin.arrived.length;
  await act();
  return edge.origin.arrived
    .slice(before)
    .map(({ message, replay }) => `${'method' in message ? message.method : 'response'}${replay ? '*' : ''}`);
};
const changed = async (session: string | undefined, starting = false) => {
  link.send({
    type: 'event',
    seq: ++seq,
    sessions: [session],
    ...(starting ? { starting } : {}),
    message: { jsonrpc: '2.0', method: 'notifications/tools/list_changed' },
  });
  expect(await link.next()).toEqual({ type: 'ack', seq });
};
const toolNames = async (wire: WireClient) => {
  const { result } = (await wire.call('tools/list')) as { result: { tools: { name: string }[] } };
  return result.tools.map(({ name }) => name);
};

describe('a copy', () => {
  test('answers 20 clients, which initialize, open their stream, list, ping and leave, without a word to the origin', async () => {
    const { answer, pages } = await filled();
    const arrived = await arrivedDuring(() =>
      Promise.all(
        Array.from({ length: 20 }, async () => {
          const client = await open();
          expect(client.answer).toEqual(answer);
          const stream = new EventReader(await client.wire.get());
          expect(await stream.block()).toBe(': connected');
          expect(await listAll(client.wire)).toEqual(pages);
          expect(await client.wire.call('ping')).toEqual({ jsonrpc: '2.0', id: 1, result: {} });
          expect((await client.wire.request('DELETE')).status).toBe(204);
        }),
      ),
    );
    expect(arrived).toEqual([]);
    expect(edge.origin.ended).toEqual([]);
  });

  test('comes as a stream to a client that would rather have one, also initialize, and where it stands in for a process', async () => {
    await filled();
    const accept = 'text/event-stream, application/json';
    const wire = new WireClient(() => edge.url, 'notes');
    const params = {
      protocolVersion: '2025-11-25',
      capabilities: { elicitation: {}, sampling: {} },
      clientInfo: { name: 'wire', version: '1' },
    };
    const initialize = { jsonrpc: '2.0', id: 1, method: 'initialize', params } as const;
    const list = { jsonrpc: '2.0', id: 2, method: 'prompts/list' } as const;
    const answers = [await wire.post(initialize, { accept })];
    wire.session = answers[0]?.headers.get('mcp-session-id') ?? '';
    answers.push(await wire.post(list, { accept }));
    await wire.call('tools/call', { name: 'write' });
    held.clear();
    answers.push(await wire.post(list, { accept }));
    for (const [n, answer] of answers.entries()) {
      expect(answer.headers.get('content-type')).toBe('text/event-stream');
      expect(await new EventReader(answer).message()).toMatchObject({ id: n === 0 ? 1 : 2, result: {} });
    }
  });

  test('answers while the origin is away, and after a restart of the edge; a call says that the origin is away', async () => {
    const { pages } = await filled();
    await edge.origin.close();
    await edge.restart('SIGKILL');
    const { wire } = await open();
    expect(await listAll(wire)).toEqual(pages);
    expect(await wire.call('tools/call', { name: 'write' })).toMatchObject({
      error: { data: { code: 'origin_away' } },
    });
    expect(await listAll(wire)).toEqual(pages);
    await edge.origin.listen();
    expect(await wire.call('tools/call', { name: 'write' })).toMatchObject({ result: { echo: 'tools/call' } });
  });

  test('is for clients that declare the same, in any order', async () => {
    await filled();
    const other = (capabilities: object) =>
      arrivedDuring(() =>
        new WireClient(() => edge.url, 'notes').post({
          jsonrpc: '2.0',
          id: 1,
          method: 'initialize',
          params: {
            protocolVersion: '2025-11-25',
            capabilities: { ...capabilities },
            clientInfo: { name: 'x', version: '2' },
          },
        }),
      );
    expect(await other({ sampling: {}, elicitation: {} })).toEqual([]);
    expect(await other({ sampling: {} })).toEqual(['initialize']);
    expect(await other({})).toEqual(['initialize']);
  });

  test('of a list stands for all its pages, or for none', async () => {
    const { wire } = await open();
    await wire.call('tools/list');
    const second = await open();
    expect(await arrivedDuring(() => second.wire.call('tools/list'))).toContain('tools/list');
    await wire.call('tools/list', { cursor: 'two' });
    await expect.poll(async () => arrivedDuring(async () => (await open()).wire.call('tools/list'))).toEqual([]);
  });

  test('is not used for a list that is asked for in an unknown way, nor stored from its answer', async () => {
    await filled();
    const { wire } = await open();
    expect(await arrivedDuring(() => wire.call('tools/list', { tag: 'x' }))).toEqual([
      'tools/list',
      'initialize*',
      'tools/list',
    ]);
  });

  test('is gone with its deployment', async () => {
    await filled();
    await link.hello(['notes'], 'epoch-0001', { ...CACHED, deployment: 'd2' });
    const { wire } = await open();
    expect(await arrivedDuring(() => listAll(wire))).toHaveLength(4);
  });

  test('is fetched anew when it is old', async () => {
    await link.hello(['notes'], 'epoch-0001', { deployment: 'd3', discovery: { copies: 'all', maxAgeS: 1 } });
    const { wire } = await open();
    await listAll(wire);
    await expect
      .poll(async () => arrivedDuring(async () => open()))
      .toEqual(['initialize', 'notifications/initialized']);
  });

  test('is neither made nor used where discovery is live', async () => {
    await link.hello(['notes'], 'epoch-0001', { deployment: 'd4', discovery: { copies: 'none', maxAgeS: 3600 } });
    await listAll((await open()).wire);
    expect(await arrivedDuring(async () => listAll((await open()).wire))).toHaveLength(6);
  });
});

describe('a session that was opened from a copy', () => {
  test('wakes at its first call, also for 50 at once, with the level that was set while it slept', async () => {
    await filled();
    const { wire } = await open();
    const quiet = await arrivedDuring(async () => {
      expect(await wire.call('logging/setLevel', { level: 'warning' })).toEqual({ jsonrpc: '2.0', id: 1, result: {} });
    });
    expect(quiet).toEqual([]);
    const calls = await Promise.all(
      Array.from({ length: 50 }, (_, n) => wire.call('tools/call', { name: 'write' }, n)),
    );
    expect(calls.map(({ id }) => id)).toEqual(Array.from({ length: 50 }, (_, n) => n));
    const replay = edge.origin.arrived.find(({ replay, grant }) => replay && grant.session === wire.session);
    expect(replay?.also).toMatchObject([{ method: 'logging/setLevel', params: { level: 'warning' } }]);
    await wire.request('DELETE');
    await expect.poll(() => edge.origin.ended.map(({ session }) => session)).toEqual([wire.session]);
  });

  test('asks its own process for its lists once it has one; the copy stands in when that is gone', async () => {
    const { pages } = await filled();
    const { wire } = await open();
    await wire.call('tools/call', { name: 'write' });
    expect(await arrivedDuring(() => wire.call('prompts/list'))).toEqual(['prompts/list']);
    held.clear();
    expect(await arrivedDuring(async () => expect(await listAll(wire)).toEqual(pages))).toEqual([
      'tools/list',
      'tools/list',
      'prompts/list',
      'resources/list',
    ]);
  });

  test('wakes for a subscription, which exists in order to be told', async () => {
    await filled();
    const { wire } = await open();
    expect(await arrivedDuring(() => wire.call('resources/subscribe', { uri: 'note:1' }))).toEqual([
      'resources/subscribe',
      'initialize*',
      'resources/subscribe',
    ]);
  });

  test('hears that its lists may have changed when the process introduces itself in another way', async () => {
    await filled();
    const { wire } = await open();
    const stream = new EventReader(await wire.get());
    listing.version = '2';
    listing.tools = ['look', 'new'];
    await wire.call('tools/call', { name: 'write' });
    expect(await stream.message()).toMatchObject({ method: 'notifications/tools/list_changed' });
    await expect
      .poll(async () => ((await open()).answer.result as { serverInfo: object }).serverInfo)
      .toMatchObject({ version: '2' });
    expect(await toolNames(wire)).toEqual(['look', 'new']);
  });

  test('ends when the process speaks another revision: its client initializes anew', async () => {
    await filled();
    const { wire } = await open();
    listing.protocolVersion = '2025-06-18';
    expect((await wire.post({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'write' } })).status).toBe(
      404,
    );
    expect(((await open()).answer.result as { protocolVersion: string }).protocolVersion).toBe('2025-06-18');
  });

  test('that cannot be restored says why, and tries again with its next call', async () => {
    await filled();
    const { wire } = await open();
    const healthy = edge.origin.handler;
    edge.origin.handler = (_, response) => refuse(response, 503, 'machine_failed');
    expect(await wire.call('tools/call', { name: 'write' })).toMatchObject({
      error: { data: { code: 'machine_failed' } },
    });
    edge.origin.handler = healthy;
    expect(await wire.call('tools/call', { name: 'write' })).toMatchObject({ result: {} });
  });
});

describe('a list that changed, says a process', () => {
  test('as processes do that start: what it lists is what is stored, and nothing happens', async () => {
    const { wire } = await filled();
    await changed(wire.session);
    await expect.poll(() => edge.origin.arrived.at(-1)?.message).toMatchObject({ id: 'moorage-list-1' });
    expect(await arrivedDuring(async () => listAll((await open()).wire))).toEqual([]);
  });

  test('before it was ever called: what it lists now is what others get, and the machine sleeps on', async () => {
    const { wire } = await filled();
    listing.tools = ['look', 'late'];
    await changed(wire.session, true);
    await expect
      .poll(async () => {
        const client = await open();
        const names: string[] = [];
        const arrived = await arrivedDuring(async () => names.push(...(await toolNames(client.wire))));
        return { names, arrived };
      })
      .toEqual({ names: ['look', 'late'], arrived: [] });
  });

  test('after it was called: what it lists is its own affair, and others are answered by a process of theirs', async () => {
    const { wire } = await filled();
    Object.assign(listing, { tools: ['look', 'mine'], own: true });
    await changed(wire.session);
    expect(await toolNames(wire)).toEqual(['look', 'mine']);
    Object.assign(listing, fresh());
    await expect
      .poll(async () => arrivedDuring(async () => toolNames((await open()).wire)))
      .toEqual(['tools/list', 'initialize*', 'tools/list']);
    expect(await arrivedDuring(async () => (await open()).wire.call('prompts/list'))).toEqual([]);
  });

  test('while it starts, and is gone before it can be asked: nothing changed for others', async () => {
    const { wire } = await filled();
    held.clear();
    await changed(wire.session, true);
    await expect.poll(() => edge.origin.arrived.at(-1)?.message).toMatchObject({ id: 'moorage-list-0' });
    expect(await arrivedDuring(async () => listAll((await open()).wire))).toEqual([]);
  });

  test('and is not there to be asked: no copy is left', async () => {
    const { wire } = await filled();
    held.clear();
    await changed(wire.session);
    await expect
      .poll(async () => arrivedDuring(async () => toolNames((await open()).wire)))
      .toEqual(['tools/list', 'initialize*', 'tools/list']);
  });
});
