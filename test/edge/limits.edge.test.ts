/** What all callers together may ask of a server, in a real workerd: exact, shared, and nobody's to use up for the others. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { UNAVAILABLE } from '../../edge/aggregate/lists.ts';
import { importKey } from '../../shared/grant.ts';
import { signOwnerToken } from '../../shared/owner.ts';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { fresh, lists } from './listing-origin.ts';
import { postModern } from './modern-client.ts';
import { keyPair, plain, type ScriptedLink } from './scripted-origin.ts';

type Json = Record<string, unknown>;
const SERVERS = ['notes', 'crowd', 'bank', 'tight', 'narrow', 'kept', 'shy'];

let edge: UnderTest;
let link: ScriptedLink;
let bearerOf: (name: string) => Promise<Record<string, string>>;

beforeAll(async () => {
  const owner = await keyPair();
  const key = await importKey(owner.privateJwk);
  bearerOf = async (name) => {
    const authorization = `Bearer ${await signOwnerToken(key, edge.url, crypto.randomUUID(), Date.now())}`;
    const made = await fetch(`${edge.url}/admin/api/tokens`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body: JSON.stringify({ name, subject: name, scopes: ['mcp'], groups: [], expiresAt: null }),
    });
    expect(made.status).toBe(201);
    return { authorization: `Bearer ${((await made.json()) as { token: string }).token}` };
  };
  const limits = {
    perPrincipal: { rate: '24/d', burst: 200 },
    perServer: { rate: '24/d', burst: 40 },
    concurrent: 100,
    servers: {
      narrow: { rate: '24/d', burst: 2 },
      tight: { rate: '24/d', burst: 12 },
      shy: { rate: '24/d', burst: 2 },
    },
  };
  const access = [
    { who: ['*'], servers: ['*'], effect: 'allow' },
    { who: ['sub:token|stranger'], servers: ['bank'], effect: 'deny' },
    { who: ['sub:token|everywhere', 'sub:token|with-sessions'], servers: ['shy'], effect: 'deny' },
    { who: ['sub:token|meddler'], servers: ['bank'], tools: ['*'], effect: 'deny' },
  ];
  edge = await edgeUnderTest(
    {},
    {
      settings: {
        MOORAGE_AUTH: JSON.stringify({ tokens: true }),
        MOORAGE_OWNER_KEY: JSON.stringify(owner.publicJwk),
        MOORAGE_LIMITS: JSON.stringify(limits),
        MOORAGE_ACCESS: JSON.stringify(access),
      },
    },
  );
  edge.origin.handler = (arrived, response) => {
    if (!lists(fresh(), arrived, response)) plain(arrived, response);
  };
  link = await edge.dial();
  await link.hello(SERVERS);
});
afterAll(async () => {
  link.close();
  await edge.stop();
});

const call = (server: string, headers: Record<string, string>) =>
  postModern(`${edge.url}/${server}/mcp`, 'tools/call', { name: 'x', arguments: {} }, { headers });
const calls = (times: number, server: string, headers: Record<string, string>) =>
  Promise.all(Array.from({ length: times }, () => call(server, headers)));
const served = (answers: readonly Response[]) => answers.filter(({ status }) => status === 200).length;
/** The response in an answer: a stream where that took a while. */
async function answerOf(response: Response): Promise<Json> {
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream');
  return isStream ? ((await new EventReader(response).message()) ?? {}) : ((await response.json()) as Json);
}
/** How many more a limit has, as headers tell it. */
const left = (answer: Response | undefined, name: string) =>
  Number(new RegExp(`"${name}";r=(\\d+)`).exec(answer?.headers.get('ratelimit') ?? '')?.[1]);

describe('the limit of a server', () => {
  test('leaves another caller its share, however much one asks for, and says when to come again', async () => {
    const [flooder, other] = [await bearerOf('flooder'), await bearerOf('other')];
    const flood = await calls(50, 'notes', flooder);
    // Exact, though all came at once: a caller alone has half of the burst.
    expect(served(flood)).toBe(20);
    const refused = flood.find(({ status }) => status === 429) as Response;
    expect(refused.headers.get('ratelimit-policy')).toBe('"principal";q=24;w=86400, "server";q=24;w=86400');
    expect(left(refused, 'server')).toBe(0);
    const { error } = (await refused.json()) as { error: { message: string; data: Json } };
    expect(error.data).toMatchObject({ code: 'rate_limited', limit: 'server', retryable: true });
    expect(refused.headers.get('retry-after')).toBe(String(error.data.retryAfterS));
    expect(error.message).toContain(`try again in ${error.data.retryAfterS} s`);
    // A new session is no other share.
    const again = new WireClient(() => edge.url, 'notes', flooder);
    expect((await again.initialize()).status).toBe(429);
    const answers = await calls(7, 'notes', other);
    expect(served(answers)).toBe(7);
    // What the server's limit refused counts against no limit of the caller's own.
    expect(left(await call('crowd', flooder), 'principal')).toBe(179);
  });

  test('is of all callers together, exact whatever they do at once', async () => {
    const callers = await Promise.all(Array.from({ length: 50 }, (_, n) => bearerOf(`one-of-many-${n}`)));
    const before = edge.origin.arrived.length;
    const answers = await Promise.all(callers.map((headers) => call('crowd', headers)));
    // One was let through in the test before.
    expect(served(answers)).toBe(39);
    const said = await Promise.all(answers.filter(({ status }) => status === 200).map(answerOf));
    expect(said.filter((answer) => !('result' in answer))).toEqual([]);
    expect(edge.origin.arrived.length - before).toBe(39);
  });

  test('is not used up by who may not use the server, or not in this way', async () => {
    const [stranger, meddler, customer] = await Promise.all(['stranger', 'meddler', 'customer'].map(bearerOf));
    for (const headers of [stranger, meddler]) {
      const answers = await calls(50, 'bank', headers as Record<string, string>);
      expect(new Set(answers.map(({ status }) => status)).has(429)).toBe(false);
      expect(await answers[0]?.json()).toMatchObject({ error: { data: { code: /^forbidden/ } } });
      expect(left(answers.at(-1), 'server')).toBeNaN();
    }
    expect(left(await call('bank', customer as Record<string, string>), 'server')).toBe(19);
  });

  test('makes no object for a server that somebody made up', async () => {
    const curious = await bearerOf('curious');
    const objects = async () => (await limiterFiles()).length;
    expect((await call('nowhere', curious)).status).toBe(404);
    const before = await objects();
    for (let n = 0; n < 20; n++) expect((await call(`nowhere-${n}`, curious)).status).toBe(404);
    expect(await objects()).toBe(before);
  });

  test('is the server’s own where it has one', async () => {
    const answers = await calls(10, 'tight', await bearerOf('tightened'));
    expect(served(answers)).toBe(6);
    expect(answers[0]?.headers.get('ratelimit-policy')).toContain('"server";q=24;w=86400');
  });

  test('outlives a restart of the edge', async () => {
    const keeper = await bearerOf('keeper');
    expect(served(await calls(30, 'kept', keeper))).toBe(20);
    await expect.poll(async () => (await contents()).includes('token|keeper'), { timeout: 10_000 }).toBe(true);
    await edge.restart();
    link = await edge.dial();
    await link.hello(SERVERS);
    expect((await call('kept', keeper)).status).toBe(429);
  });

  test('at /mcp takes one server out of a list, and refuses its calls alone', async () => {
    const everywhere = await bearerOf('everywhere');
    const post = (method: string, params: Json = {}) =>
      postModern(`${edge.url}/mcp`, method, params, { headers: everywhere });
    const list = async () => (await answerOf(await post('tools/list'))).result as Json;
    const names = ({ tools }: Json) => (tools as { name: string }[]).map(({ name }) => name);
    // Two pages: all that it has, and the listing itself may not go on.
    expect(names(await list())).toContain('bank__look');
    const listed = await list();
    expect(names(listed)).toContain('bank__look');
    expect(names(listed)).not.toContain('narrow__look');
    const missing = (listed._meta as Record<string, { server: string; reason: string }[]>)[UNAVAILABLE];
    expect(missing?.find(({ server }) => server === 'narrow')?.reason).toMatch(/All callers together .* try again in/);
    const refused = await post('tools/call', { name: 'narrow__look', arguments: {} });
    const { limit, code } = ((await answerOf(refused)).error as { data: Json }).data;
    expect([limit, code]).toEqual(['server', 'rate_limited']);
    expect(await answerOf(await post('tools/call', { name: 'bank__look', arguments: {} }))).toHaveProperty('result');
  });

  test('… also where it refuses the session that a server would need', async () => {
    const all = new WireClient(() => edge.url, '', await bearerOf('with-sessions'));
    expect((await all.initialize()).status).toBe(200);
    const listed = JSON.stringify(await answerOf(await all.post({ jsonrpc: '2.0', id: 1, method: 'tools/list' })));
    expect(listed).toContain('bank__look');
    expect(listed).toMatch(/"narrow","reason":"All callers together/);
    const called = await all.post({
      jsonrpc: '2.0',
      id: 2,
      method: 'tools/call',
      params: { name: 'narrow__look', arguments: {} },
    });
    const data = { code: 'rate_limited', limit: 'server', retryable: true, retryAfterS: expect.any(Number) };
    expect(await answerOf(called)).toMatchObject({ id: 2, error: { data } });
  });

  test('… and a session that it lets through is greeted in any case', async () => {
    const all = new WireClient(() => edge.url, '', await bearerOf('greeting'));
    await all.initialize();
    const listed = JSON.stringify(await answerOf(await all.post({ jsonrpc: '2.0', id: 1, method: 'tools/list' })));
    // The one that a caller may have at once was the session's initialize.
    expect(listed).toMatch(/"shy","reason":"All callers together/);
    const said = edge.origin.arrived.filter(({ grant }) => grant.server === 'shy');
    expect(said.map(({ message }) => 'method' in message && message.method)).toEqual([
      'initialize',
      'notifications/initialized',
    ]);
  });
});

const folder = () => join(edge.stateDir, 'edge/storage/moorage-limiter');
const limiterFiles = () => readdir(folder());

/** Everything that Limiter objects have written. */
async function contents(): Promise<string> {
  const files = await limiterFiles();
  return (await Promise.all(files.map((name) => readFile(join(folder(), name), 'latin1')))).join('\n');
}
