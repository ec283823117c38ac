/** Discovery of the stateless era (2026-07-28) from copies: at a server's own URL and at `/mcp`. */
import type { ServerResponse } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ERA_HEADER, FAILURE_EVENT, FAILURE_HEADER, KEEP_ALIVE_MS, WAKE_HEADER } from '../../shared/origin-api.ts';
import { EventReader, edgeUnderTest, type UnderTest } from './edge-under-test.ts';
import { fresh, type Listing, lists } from './listing-origin.ts';
import { type ModernOptions, postModern } from './modern-client.ts';
import {
  type Arrived,
  event,
  type Handler,
  json,
  plain,
  refuse,
  result,
  type ScriptedLink,
} from './scripted-origin.ts';

const CACHED = { discovery: { copies: 'all', maxAgeS: 3600 } } as const;

let edge: UnderTest;
let link: ScriptedLink;
let listing: Listing;
/** Each test has servers of its own, so that no copy and no lane of another is there. */
let server: string;
let tests = 0;
let seq = 0;
/** Whether the machine is awake. */
let awake: boolean;
/** What the origin does where the server does not list. */
let otherwise: Handler;
beforeAll(async () => {
  edge = await edgeUnderTest();
  link = await edge.dial();
});
beforeEach(async () => {
  listing = fresh();
  server = `notes${++tests}`;
  awake = true;
  otherwise = plain;
  edge.origin.arrived.length = 0;
  seq = 0;
  await link.hello([server], `epoch-of-${server}`, CACHED);
  edge.origin.handler = (arrived, response) => {
    if (arrived.headers[WAKE_HEADER] === 'no' && !awake) return refuse(response, 409, 'session_unknown');
    awake = true;
    if (!lists(listing, arrived, response)) return otherwise(arrived, response);
  };
});
afterAll(() => edge.stop());

type Answer = { id: unknown; result: Record<string, unknown>; error?: { data: object } };
const ask = async (method: string, params: Record<string, unknown> = {}, options: ModernOptions = {}, at = server) => {
  const response = await postModern(at === '' ? `${edge.url}/mcp` : `${edge.url}/${at}/mcp`, method, params, options);
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream');
  return (isStream ? await new EventReader(response).message() : await response.json()) as Answer;
};
const visit = async (options: ModernOptions = {}, at = server) => [
  await ask('server/discover', {}, options, at),
  await ask('tools/list', {}, options, at),
  ...(at === '' ? [] : [await ask('tools/list', { cursor: 'two' }, options, at)]),
  await ask('prompts/list', {}, options, at),
  await ask('resources/list', {}, options, at),
  // Refused: that there is no such list is known from then on.
  await ask('resources/templates/list', {}, options, at),
];
const arrivedDuring = async (act: () => Promise<unknown>) => {
  const before = edge.origin.arrived.length;
  await act();
  return edge.origin.arrived.slice(before).map(({ message }) => ('method' in message ? message.method : 'response'));
};
const filled = async (options: ModernOptions = {}) => {
  const pages = await visit(options);
  // Copies are stored behind the answers.
  await expect.poll(() => arrivedDuring(() => visit(options))).toEqual([]);
  return pages;
};
const names = ({ result: { tools } }: Answer) => (tools as { name: string }[]).map(({ name }) => name);

describe('a copy', () => {
  test('answers 20 clients who look around, at the server and at /mcp, without a word to the origin', async () => {
    const pages = await filled();
    const whole = await visit({}, '');
    await expect.poll(() => arrivedDuring(() => visit({}, ''))).toEqual([]);
    awake = false;
    const arrived = await arrivedDuring(() =>
      Promise.all(
        Array.from({ length: 20 }, async (_, n) => {
          expect(await visit()).toEqual(pages);
          if (n % 4 === 0) expect(await visit({}, '')).toEqual(whole);
        }),
      ),
    );
    expect([arrived, awake]).toEqual([[], false]);
    expect(names(whole[1] as Answer)).toEqual(['look', 'again', 'write'].map((name) => `${server}__${name}`));
  });

  test('answers while the origin is away', async () => {
    const pages = await filled();
    await edge.origin.close();
    expect(await visit()).toEqual(pages);
    await edge.origin.listen();
  });

  test('is for clients that declare the same', async () => {
    await filled();
    const declaring = (capabilities: Record<string, unknown>) =>
      arrivedDuring(() => ask('tools/list', {}, { capabilities }));
    expect(await declaring({ elicitation: {} })).toEqual(['tools/list']);
    expect(await declaring({})).toEqual([]);
  });

  test('is not used for a list that is asked for in an unknown way', async () => {
    await filled();
    expect(await arrivedDuring(() => ask('tools/list', { tag: 'x' }))).toEqual(['tools/list']);
  });

  test('is gone with its deployment, and neither made nor used where discovery is live', async () => {
    await filled();
    await link.hello([server], 'epoch-0001', { ...CACHED, deployment: 'd2' });
    expect(await arrivedDuring(visit)).toHaveLength(6);
    await link.hello([server], 'epoch-0001', { deployment: 'd3', discovery: { copies: 'none', maxAgeS: 3600 } });
    await visit();
    expect(await arrivedDuring(visit)).toHaveLength(6);
  });

  test('is not made of what a process changed for itself', async () => {
    listing.own = true;
    await visit();
    expect(await arrivedDuring(visit)).toHaveLength(6);
  });

  test('of a result that is none of the revision’s is not made, and it passes as it came', async () => {
    listing.hints = { resultType: 'com.example/other' };
    expect(await ask('prompts/list')).toEqual({
      jsonrpc: '2.0',
      id: 1,
      result: { prompts: [{ name: 'greet' }], resultType: 'com.example/other' },
    });
    expect(await arrivedDuring(() => ask('prompts/list'))).toEqual(['prompts/list']);
  });
});

describe('what a client is told about caching', () => {
  const prompts = async () => (await ask('prompts/list')).result;

  test('of a server that says nothing: to ask again, and to keep it for itself; alike from server and copy', async () => {
    expect(await prompts()).toEqual({ prompts: [{ name: 'greet' }], ttlMs: 0, cacheScope: 'private' });
    await expect.poll(() => arrivedDuring(prompts)).toEqual([]);
    expect(await prompts()).toEqual({ prompts: [{ name: 'greet' }], ttlMs: 0, cacheScope: 'private' });
  });

  test('also on a stream, whose other messages pass', async () => {
    const log = { jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: 'x' } };
    edge.origin.handler = ({ message }, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.end(event(log) + event(result(message, { prompts: [], big: 1 })));
    };
    const reader = new EventReader(await postModern(`${edge.url}/${server}/mcp`, 'prompts/list'));
    expect([await reader.message(), await reader.message()]).toMatchObject([
      log,
      { id: 1, result: { prompts: [], big: 1, ttlMs: 0, cacheScope: 'private' } },
    ]);
  });

  test('what is left of a lifetime that the server gives; when it is over the server is asked', async () => {
    listing.hints = { ttlMs: 2000, cacheScope: 'public' };
    expect(await prompts()).toMatchObject({ ttlMs: 2000, cacheScope: 'public' });
    await expect.poll(() => arrivedDuring(prompts)).toEqual([]);
    await expect.poll(async () => (await prompts()).ttlMs).toBeLessThan(1900);
    await expect.poll(() => arrivedDuring(prompts)).toEqual(['prompts/list']);
  });
});

describe('a lane whose process was needed', () => {
  test('asks it for its lists while it runs, and is answered from the copy when it sleeps or is away', async () => {
    const pages = await filled();
    expect(await arrivedDuring(() => ask('tools/call', { name: 'write' }))).toEqual(['tools/call']);
    listing.tools = ['look', 'mine'];
    listing.own = true;
    expect(names(await ask('tools/list'))).toEqual(['look', 'mine']);
    awake = false;
    expect([await visit(), awake]).toEqual([pages, false]);
    await edge.origin.close();
    expect(await visit()).toEqual(pages);
    await edge.origin.listen();
  });
});

/** The process that a lane uses says that a list of its own, or of the server `of`, has changed. */
const say = async (kind: string, { starting = false, of = server } = {}) => {
  const [{ grant }] = edge.origin.arrived.filter((arrived) => arrived.grant.server === server) as [Arrived];
  link.send({
    type: 'event',
    seq: ++seq,
    sessions: [],
    lane: { id: grant.session, server: of, principal: grant.principal, capabilities: {} },
    ...(starting ? { starting } : {}),
    message: { jsonrpc: '2.0', method: `notifications/${kind}/list_changed` },
  });
  expect(await link.next()).toEqual({ type: 'ack', seq });
};

describe('a list that changed, says a process that only lanes use', () => {
  const listed = async () => {
    const seen: string[] = [];
    const arrived = await arrivedDuring(async () => seen.push(...names(await ask('tools/list'))));
    return { seen, arrived };
  };

  test('before it was called: what it lists now is the copy, though the machine sleeps then', async () => {
    await filled();
    listing.tools = ['look', 'late'];
    await say('tools', { starting: true });
    await expect.poll(listed).toEqual({ seen: ['look', 'late'], arrived: [] });
    const asked = edge.origin.arrived.at(-1);
    expect(asked?.headers).toMatchObject({ [ERA_HEADER]: 'modern', [WAKE_HEADER]: 'no' });
    expect(asked?.message).toMatchObject({ params: { _meta: { 'io.modelcontextprotocol/clientCapabilities': {} } } });
  });

  test('after it was called: there is no copy of its own affair, until a fresh process lists', async () => {
    await filled();
    Object.assign(listing, { tools: ['look', 'mine'], own: true });
    await say('tools');
    await expect.poll(listed).toEqual({ seen: ['look', 'mine'], arrived: ['tools/list'] });
    Object.assign(listing, fresh());
    await ask('tools/list');
    await ask('tools/list', { cursor: 'two' });
    await expect.poll(listed).toEqual({ seen: ['look'], arrived: [] });
  });

  test('and lists the same as before: nothing happened; nor when it is an origin that speaks of another’s server or lane', async () => {
    await filled();
    await say('tools');
    await expect.poll(() => edge.origin.arrived.at(-1)?.message).toMatchObject({ id: 'moorage-list-1' });
    listing.tools = ['forged'];
    await say('tools', { of: 'elsewhere' });
    expect(await listed()).toEqual({ seen: ['look'], arrived: [] });
  });
});

const listen = (at: string, notifications: object) =>
  postModern(`${edge.url}${at}/mcp`, 'subscriptions/listen', { notifications }, { id: 'L' });
const listening = async (at: string, notifications: object, agreed = notifications) => {
  const reader = new EventReader(await listen(at, notifications));
  expect(await reader.message()).toEqual({
    jsonrpc: '2.0',
    method: 'notifications/subscriptions/acknowledged',
    params: { notifications: agreed, _meta: { 'io.modelcontextprotocol/subscriptionId': 'L' } },
  });
  return reader;
};
const changed = (kind: string) => ({
  jsonrpc: '2.0',
  method: `notifications/${kind}/list_changed`,
  params: { _meta: { 'io.modelcontextprotocol/subscriptionId': 'L' } },
});
describe('a client that listens at a server', () => {
  const BOTH = { toolsListChanged: true, promptsListChanged: true };

  test('is told what the server promises, and hears when its lists change: nobody wakes, of no other server', async () => {
    await filled();
    awake = false;
    const arrived = await arrivedDuring(async () => {
      const reader = await listening(`/${server}`, BOTH, { toolsListChanged: true });
      const other = await listening(`/${server}`, { promptsListChanged: true }, {});
      await link.hello([server, `${server}-more`], `epoch-of-${server}`, CACHED);
      await link.hello([server], `epoch-of-${server}`, { ...CACHED, deployment: 'd2' });
      expect(await reader.message()).toEqual(changed('tools'));
      await link.hello([server], `epoch-of-${server}`, { ...CACHED, deployment: 'd3' });
      expect(await reader.message()).toEqual(changed('tools'));
      await Promise.all([reader.cancel(), other.cancel()]);
    });
    expect([arrived, awake]).toEqual([[], false]);
  });

  test('listens while the origin is away', async () => {
    await filled();
    await edge.origin.close();
    const reader = await listening(`/${server}`, { toolsListChanged: true });
    await reader.cancel();
    await edge.origin.listen();
  });

  test('hears a process that runs, also where it lists what is known: that is told here, and not at /mcp', async () => {
    await filled();
    const here = await listening(`/${server}`, { toolsListChanged: true });
    const everywhere = await listening('', BOTH);
    await say('tools', { starting: true });
    await expect.poll(() => edge.origin.arrived.at(-1)?.message).toMatchObject({ id: 'moorage-list-1' });
    await say('tools');
    expect(await here.message()).toEqual(changed('tools'));
    listing.own = true;
    await say('tools');
    expect(await here.message()).toEqual(changed('tools'));
    listing.tools = ['look', 'late'];
    await say('tools');
    expect([await here.message(), await everywhere.message()]).toEqual([changed('tools'), changed('tools')]);
    await link.hello([server], `epoch-after-${server}`, { ...CACHED, deployment: 'd2' });
    expect(await here.message()).toEqual(changed('tools'));
    expect([await everywhere.message(), await everywhere.message()]).toEqual([changed('tools'), changed('prompts')]);
    await Promise.all([here.cancel(), everywhere.cancel()]);
  });

  test('before anybody asked what the server is: it is asked once, and its refusal is the answer', async () => {
    const open = async () => await (await listening(`/${server}`, { toolsListChanged: true })).cancel();
    expect(await arrivedDuring(open)).toEqual(['server/discover']);
    await expect.poll(() => arrivedDuring(open)).toEqual([]);
    await link.hello([server], `epoch-of-${server}`, { ...CACHED, deployment: 'd2' });
    edge.origin.handler = (_, response) => refuse(response, 503, 'machine_failed');
    expect(await (await listen(`/${server}`, {})).json()).toMatchObject({
      id: 'L',
      error: { data: { code: 'machine_failed' } },
    });
  });

  test('hears also what changed while it was being opened', async () => {
    const asked = Promise.withResolvers<void>();
    const answering = Promise.withResolvers<void>();
    edge.origin.handler = async (arrived, response) => {
      asked.resolve();
      await answering.promise;
      lists(listing, arrived, response);
    };
    const opening = listening(`/${server}`, { toolsListChanged: true });
    await asked.promise;
    await link.hello([server], `epoch-of-${server}`, { ...CACHED, deployment: 'd2' });
    answering.resolve();
    const reader = await opening;
    expect(await reader.message()).toEqual(changed('tools'));
    await reader.cancel();
  });

  test.each([
    ['where discovery is live', { toolsListChanged: true }, { copies: 'none', maxAgeS: 3600 } as const],
    ['for what the edge does not know', { toolsListChanged: true, 'com.example/future': ['x'] }, CACHED.discovery],
    ['without a filter that can be read', ['tools'], CACHED.discovery],
  ])('is carried to the process %s', async (_, notifications, discovery) => {
    await filled();
    await link.hello([server], `epoch-of-${server}`, { discovery });
    const [text] = await Promise.all([listen(`/${server}`, notifications).then((response) => response.json())]);
    expect(text).toMatchObject({ id: 'L', result: { echo: 'subscriptions/listen' } });
    expect(edge.origin.arrived.at(-1)?.message).toMatchObject({ id: 'L', params: { notifications } });
  });

  describe('for updates of resources', () => {
    const uris = ['note:1', 'none:2'];
    const updated = (uri: string) => ({
      jsonrpc: '2.0',
      method: 'notifications/resources/updated',
      params: { uri, _meta: { 'io.modelcontextprotocol/subscriptionId': 'L' } },
    });
    const listens = () =>
      edge.origin.arrived.filter(({ message }) => 'method' in message && message.method === 'subscriptions/listen');
    /** Streams that the origin has open for listens. */
    let streams: ServerResponse[];
    const opening: Handler = (arrived, response) => {
      if (!('method' in arrived.message) || arrived.message.method !== 'subscriptions/listen') {
        if (!lists(listing, arrived, response)) plain(arrived, response);
        return;
      }
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const params = { notifications: { resourceSubscriptions: ['note:1'] } };
      response.write(event({ jsonrpc: '2.0', method: 'notifications/subscriptions/acknowledged', params }));
      streams.push(response);
    };
    beforeEach(() => {
      streams = [];
      edge.origin.handler = opening;
    });

    test('asks for these at the process, which need not wake, and again when that ends; the stream goes on', async () => {
      await filled();
      const reader = await listening(
        `/${server}`,
        { toolsListChanged: true, resourceSubscriptions: uris },
        { toolsListChanged: true, resourceSubscriptions: ['note:1'] },
      );
      expect(listens()).toMatchObject([
        { headers: { [ERA_HEADER]: 'modern', [WAKE_HEADER]: 'no' }, message: { id: 'L' } },
      ]);
      expect(listens()[0]?.message).toMatchObject({ params: { notifications: { resourceSubscriptions: uris } } });
      streams[0]?.write(event(updated('note:1')));
      expect(await reader.message()).toEqual(updated('note:1'));
      streams[0]?.end(event({ jsonrpc: '2.0', id: 'L', result: { resultType: 'complete' } }));
      await expect.poll(() => streams.length, { timeout: 10_000 }).toBe(2);
      streams[1]?.write(event(updated('note:1')));
      expect(await reader.message()).toEqual(updated('note:1'));
      await link.hello([server], `epoch-of-${server}`, { ...CACHED, deployment: 'd2' });
      expect(await reader.message()).toEqual(changed('tools'));
      await reader.cancel();
      await expect.poll(() => streams[1]?.closed, { timeout: 20_000 }).toBe(true);
      expect(streams).toHaveLength(2);
    }, 40_000);

    test('begins while the origin is away, and is heard when it is back', async () => {
      await filled();
      await edge.origin.close();
      const reader = await listening(`/${server}`, { resourceSubscriptions: uris });
      await edge.origin.listen();
      await expect.poll(() => streams.length, { timeout: 20_000 }).toBe(1);
      streams[0]?.write(event(updated('none:2')));
      expect(await reader.message()).toEqual(updated('none:2'));
      await reader.cancel();
    }, 40_000);

    test('is told the error by which the server refuses', async () => {
      await filled();
      const error = { code: -32602, message: 'no' };
      edge.origin.handler = ({ message }, response) =>
        json(response, { jsonrpc: '2.0', id: 'id' in message ? message.id : null, error });
      expect(await (await listen(`/${server}`, { resourceSubscriptions: uris })).json()).toEqual({
        jsonrpc: '2.0',
        id: 'L',
        error,
      });
    });
  });

  test('sees within 15 seconds that its silent stream lives', async () => {
    await filled();
    const reader = await listening(`/${server}`, { toolsListChanged: true });
    const silent = performance.now();
    expect(await reader.block()).toBe(': keep-alive');
    expect(performance.now() - silent).toBeLessThan(KEEP_ALIVE_MS);
    await reader.cancel();
  }, 30_000);
});

describe('a client that listens at /mcp', () => {
  test('hears what it asked for when lists of a server at an origin change, and wakes nobody', async () => {
    await filled();
    awake = false;
    const tools = await listening('', { toolsListChanged: true });
    const both = await listening('', { toolsListChanged: true, promptsListChanged: true });
    expect(await arrivedDuring(async () => undefined)).toEqual([]);
    await link.hello([server], `epoch-of-${server}`, { ...CACHED, deployment: 'd2' });
    expect([await tools.message(), await both.message(), await both.message()]).toEqual([
      changed('tools'),
      changed('tools'),
      changed('prompts'),
    ]);
    await link.hello([server, `${server}-more`], `epoch-of-${server}`, { ...CACHED, deployment: 'd2' });
    expect(await tools.message()).toEqual(changed('tools'));
    expect([awake, edge.origin.arrived.filter(({ grant }) => grant.server !== server)]).toEqual([false, []]);
    await Promise.all([tools.cancel(), both.cancel()]);
  });

  test('hears when a process says so, and when a live list is another than the copy was; not when nothing changed', async () => {
    await link.hello([server], `epoch-of-${server}`, { deployment: 'd2', discovery: { copies: 'all', maxAgeS: 1 } });
    await filled();
    const reader = await listening('', { toolsListChanged: true, promptsListChanged: true });
    await say('prompts');
    await expect.poll(() => edge.origin.arrived.at(-1)?.message).toMatchObject({ id: 'moorage-list-0' });
    listing.tools = ['look', 'late'];
    await expect.poll(async () => names(await ask('tools/list'))).toEqual(['look', 'late']);
    expect(await reader.message()).toEqual(changed('tools'));
    listing.prompts = ['other'];
    await say('prompts');
    expect(await reader.message()).toEqual(changed('prompts'));
    await reader.cancel();
  });
});

describe('arguments that travel in headers', () => {
  const call = async (headers: Record<string, string>) =>
    (
      await postModern(
        `${edge.url}/${server}/mcp`,
        'tools/call',
        { name: 'x', arguments: { region: 'eu' } },
        { headers },
      )
    ).status;

  test.each([
    ['must agree when the copy names them, whatever the list before it said', {}, 400],
    ['may be left out when it does not', { sampling: {} }, 200],
  ])('%s', async (_, last, status) => {
    edge.origin.handler = (arrived, response) => {
      const { message } = arrived;
      if (!('method' in message) || message.method !== 'tools/list') return plain(arrived, response);
      const named = JSON.stringify(message.params).includes('"sampling"') ? {} : { 'x-mcp-header': 'Region' };
      const inputSchema = { type: 'object', properties: { region: { type: 'string', ...named } } };
      json(response, result(message, { tools: [{ name: 'x', inputSchema }] }));
    };
    const list = async (capabilities: Record<string, unknown>) => {
      const asking = () => ask('tools/list', {}, { capabilities });
      await asking();
      await expect.poll(() => arrivedDuring(asking)).toEqual([]);
    };
    for (const capabilities of [{}, { sampling: {} }, {}, { sampling: {} }]) await list(capabilities);
    expect(await arrivedDuring(() => ask('tools/list', {}, { capabilities: last }))).toEqual([]);
    expect(await call({})).toBe(status);
    expect(await call({ 'mcp-param-region': 'eu' })).toBe(200);
  });
});

describe('a call that is lost on its way', () => {
  const calling = async (name: string, seen: Handler[]) => {
    const fates = [...seen];
    otherwise = (arrived, response) => (fates.shift() ?? plain)(arrived, response);
    const answer = await ask('tools/call', { name });
    return { answer, left: fates.length };
  };
  const breaks: Handler = (_, response) => void response.socket?.destroy();
  const breaksWithinStream: Handler = (_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(': keep-alive\n\n', () => response.socket?.destroy());
  };
  const lost = { error: { code: -32000, message: 'gone', data: { code: 'outcome_unknown', cause: 'server_exited' } } };
  const gone: Handler = ({ message }, response) => {
    response.setHeader(FAILURE_HEADER, 'outcome_unknown');
    json(response, { jsonrpc: '2.0', id: 'id' in message ? message.id : null, ...lost });
  };
  const goneInStream: Handler = ({ message }, response) => {
    const answer = { jsonrpc: '2.0', id: 'id' in message ? message.id : null, ...lost };
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.end(`: keep-alive\n\nevent: ${FAILURE_EVENT}\ndata: ${JSON.stringify(answer)}\n\n`);
  };
  const second: Handler = ({ message }, response) => json(response, result(message, { value: 'second' }));

  test.each([
    ['before its answer', breaks],
    ['in the middle of an empty stream', breaksWithinStream],
    ['with its process, says the agent', gone],
    ['with its process, says the agent in a stream', goneInStream],
  ])('%s is repeated once where its tool says that it may be', async (_, lost) => {
    await filled();
    for (const name of ['look', 'again']) {
      expect(await calling(name, [lost, second])).toMatchObject({ answer: { result: { value: 'second' } }, left: 0 });
    }
    expect(await calling('look', [lost, lost, second])).toMatchObject({
      answer: { error: { data: { code: 'outcome_unknown', retryable: true } } },
      left: 1,
    });
    expect(await calling('write', [lost, second])).toMatchObject({
      answer: { error: { data: { code: 'outcome_unknown', retryable: false } } },
      left: 1,
    });
  });

  test('after its client has seen something of it is not repeated', async () => {
    await filled();
    const said: Handler = (_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const progress = { jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken: 1, progress: 1 } };
      response.write(event(progress), () => response.socket?.destroy());
    };
    otherwise = said;
    await ask('tools/call', { name: 'look' });
    expect(
      edge.origin.arrived.filter(({ message }) => 'method' in message && message.method === 'tools/call'),
    ).toHaveLength(1);
    expect(edge.origin.arrived.at(-1)?.headers[ERA_HEADER]).toBe('modern');
  });
});
