/**
 * Streams end with the credential that opened them, of every kind of stream and of credential, and no others do.
 *
 * A stream that has lived two seconds is joined to whoever knows its credential; a younger one is joined, or refused, then.
 * Both ways are tested: `watched` waits for the first.
 */
import { randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { importKey } from '../../shared/grant.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { signOwnerToken } from '../../shared/owner.ts';
import { OidcIssuer } from '../support/oidc.ts';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { authorizeUrl, decide, open, postToken, REDIRECT, register } from './login-client.ts';
import { postModern } from './modern-client.ts';
import { event, json, plain, result } from './scripted-origin.ts';

let edge: UnderTest;
let issuer: OidcIssuer;
let ownerKey: Awaited<ReturnType<typeof importKey>>;
let clientId: string;
/** Calls that run at the origin, by the key in their arguments. */
const running = new Map<string, { message: JsonRpcMessage; response: ServerResponse }>();

beforeAll(async () => {
  issuer = await OidcIssuer.start();
  const pair = await generateKeyPair('EdDSA', { extractable: true });
  ownerKey = pair.privateKey;
  edge = await edgeUnderTest(
    { asking: new URL('./asking-server.ts', import.meta.url).pathname },
    {
      loopbackFetch: true,
      settings: {
        MOORAGE_AUTH: JSON.stringify({
          tokens: true,
          oauth: { accessTokenLife: ACCESS_LIFE_S },
          jwt: [{ issuer: issuer.url, audience: ['moorage'], scopes: ['mcp'] }],
        }),
        MOORAGE_OWNER_KEY: JSON.stringify(await exportJWK(pair.publicKey)),
      },
    },
  );
  edge.origin.handler = (arrived, response) => {
    const { message } = arrived;
    const called = 'method' in message && message.method === 'tools/call' ? message.params : undefined;
    if (!called) return plain(arrived, response);
    running.set((called.arguments as { key: string }).key, { message, response });
    if (called.name === 'later') return;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(
      event({ jsonrpc: '2.0', method: 'notifications/message', params: { level: 'error', data: 'begun' } }),
    );
  };
  await (await edge.dial()).hello(['notes']);
  clientId = await register(edge.url);
});
afterAll(async () => {
  issuer.close();
  await edge.stop();
});

/** A bound for what hangs, not for what a loaded host makes slow. */
const SOON = { timeout: 30_000 };
/** The shortest that can be configured. */
const ACCESS_LIFE_S = 60;

const admin = async (method: string, path: string, body?: unknown) => {
  const token = await signOwnerToken(ownerKey, edge.url, randomBytes(8).toString('hex'), Date.now());
  const response = await fetch(`${edge.url}/admin/api${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  expect(response.ok).toBe(true);
  return response.status === 204 ? {} : ((await response.json()) as Record<string, never>);
};

/** Something that opens streams, and its end. */
interface Holder {
  readonly bearer: string;
  readonly revoke: () => Promise<unknown>;
}

async function token(subject: string, expiresAt: number | null = null): Promise<Holder> {
  const wish = { name: randomBytes(4).toString('hex'), subject, scopes: ['mcp'], groups: [], expiresAt };
  const { id, token: bearer } = await admin('POST', '/tokens', wish);
  return { bearer: bearer ?? '', revoke: () => admin('DELETE', `/tokens/${id}`) };
}

/** What a login gave its client. */
async function loginOf(name: string) {
  const resource = `${edge.url}/mcp`;
  const { url, verifier } = authorizeUrl(edge.url, { client_id: clientId, scope: 'mcp', resource });
  const { code: typed } = await admin('POST', '/logins/codes', { name });
  const { onward } = await decide(url, await open(url), { decision: 'allow', code: typed ?? '' });
  const code = new URL(onward ?? 'missing:').searchParams.get('code') ?? '';
  return await tokensFor({ grant_type: 'authorization_code', code, redirect_uri: REDIRECT, code_verifier: verifier });
}
async function tokensFor(form: Record<string, string>) {
  const { body } = await postToken(edge.url, { client_id: clientId, ...form });
  return { access: body.access_token ?? '', refresh: body.refresh_token ?? '' };
}
const refreshed = (refresh: string) => tokensFor({ grant_type: 'refresh_token', refresh_token: refresh });
const revokedByClient = async (given: string) => {
  expect((await postToken(edge.url, { client_id: clientId, token: given })).status).toBe(200);
};
const endLogin = (access: string) =>
  admin('DELETE', `/logins/${encodeURIComponent(access.split(':').slice(0, 2).join(':'))}`);

const headersOf = (bearer: string) => ({ authorization: `Bearer ${bearer}` });

/** A stream that is open. */
interface Held {
  readonly reader: EventReader;
  /** Makes the server say something on it. */
  readonly speak: () => Promise<unknown>;
}

/** One of every kind of stream, by what it is. */
const KINDS: Readonly<Record<string, (bearer: string, key: string) => Promise<Held>>> = {
  'GET of a session': (bearer) => sessionStream('asking', 'change_list', bearer),
  'GET at /mcp': (bearer) => sessionStream('', 'asking__change_list', bearer),
  'a call in a session': (bearer, key) => callInSession('notes', 'hold', bearer, key),
  'a call in a session at /mcp': (bearer, key) => callInSession('', 'notes__hold', bearer, key),
  'a batch': async (bearer, key) => {
    const client = await initialized('notes', bearer, '2025-03-26');
    const call = { jsonrpc: '2.0', id: 7, method: 'tools/call', params: { name: 'hold', arguments: { key } } };
    return await callOf(await client.post(JSON.stringify([call])), key);
  },
  'a call of 2026-07-28': (bearer, key) => modernCall('notes', 'hold', bearer, key),
  'a call of 2026-07-28 at /mcp': (bearer, key) => modernCall('', 'notes__hold', bearer, key),
  'subscriptions/listen': (bearer) => listening('asking', bearer),
  'subscriptions/listen at /mcp': (bearer) => listening('', bearer),
  'HTTP+SSE': async (bearer) => {
    const headers = headersOf(bearer);
    const reader = new EventReader(await fetch(`${edge.url}/notes/sse`, { headers }));
    const [, endpoint = ''] = /^event: endpoint\ndata: (.*)$/.exec((await reader.block()) ?? '') ?? [];
    const post = (message: object) =>
      fetch(new URL(endpoint, edge.url), {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify({ jsonrpc: '2.0', ...message }),
      });
    const clientInfo = { name: 'wire', version: '1' };
    const params = { protocolVersion: '2024-11-05', capabilities: {}, clientInfo };
    await post({ id: 0, method: 'initialize', params });
    expect(await reader.message()).toMatchObject({ id: 0, result: {} });
    return { reader, speak: () => post({ id: 1, method: 'ping' }) };
  },
};

async function initialized(server: string, bearer: string, version?: string): Promise<WireClient> {
  const client = new WireClient(() => edge.url, server, headersOf(bearer));
  expect((await client.initialize(version)).status).toBe(200);
  return client;
}
async function sessionStream(server: string, tool: string, bearer: string): Promise<Held> {
  const client = await initialized(server, bearer);
  const reader = new EventReader(await client.get());
  expect(await reader.block()).toMatch(/^:/);
  return { reader, speak: async () => await (await callTool(client, tool)).text() };
}
const callTool = (client: WireClient, name: string, args: object = {}) =>
  client.post({ jsonrpc: '2.0', id: 7, method: 'tools/call', params: { name, arguments: args } });
async function callInSession(server: string, tool: string, bearer: string, key: string): Promise<Held> {
  return await callOf(await callTool(await initialized(server, bearer), tool, { key }), key);
}
const at = (server: string) => `${edge.url}${server === '' ? '' : `/${server}`}/mcp`;
async function modernCall(server: string, name: string, bearer: string, key: string): Promise<Held> {
  const options = { headers: headersOf(bearer), meta: { 'io.modelcontextprotocol/logLevel': 'debug' } };
  return await callOf(await postModern(at(server), 'tools/call', { name, arguments: { key } }, options), key);
}
/** A call that runs, of which its client has heard. */
async function callOf(response: Response, key: string): Promise<Held> {
  const reader = new EventReader(response);
  expect(await reader.message()).toMatchObject({ params: { data: 'begun' } });
  const speak = async () => {
    const call = running.get(key);
    call?.response.end(event(result(call.message, { content: [] })));
  };
  return { reader, speak };
}
async function listening(server: string, bearer: string): Promise<Held> {
  const headers = headersOf(bearer);
  const wanted = { notifications: { toolsListChanged: true } };
  const reader = new EventReader(await postModern(at(server), 'subscriptions/listen', wanted, { headers }));
  expect(await reader.message()).toMatchObject({ method: 'notifications/subscriptions/acknowledged' });
  const params = { name: 'change_list', arguments: {} };
  return {
    reader,
    speak: async () => await (await postModern(at('asking'), 'tools/call', params, { headers })).text(),
  };
}

/** All kinds of streams, opened with one credential. */
class Streams {
  readonly held: ReadonlyMap<string, Held>;
  readonly #key: string;

  private constructor(held: ReadonlyMap<string, Held>, key: string) {
    this.held = held;
    this.#key = key;
  }

  static async open(bearer: string): Promise<Streams> {
    const key = randomBytes(4).toString('hex');
    const held = Object.entries(KINDS).map(
      async ([kind, begin]) => [kind, await begin(bearer, `${key} ${kind}`)] as const,
    );
    return new Streams(new Map(await Promise.all(held)), key);
  }

  /** Waits until all have ended. What they say before their end is the server's affair. */
  async ended(): Promise<void> {
    const open = new Set(this.held.keys());
    for (const [kind, { reader }] of this.held) {
      const drained = async () => {
        while ((await reader.message()) !== null);
        open.delete(kind);
      };
      void drained();
    }
    await expect.poll(() => [...open], SOON).toEqual([]);
  }

  /** That each of them carries what is said now. */
  async live(kinds: readonly string[] = Object.keys(KINDS)): Promise<void> {
    for (const [kind, { reader, speak }] of this.held) {
      if (!kinds.includes(kind)) continue;
      await speak();
      expect([kind, await reader.message()]).not.toEqual([kind, null]);
    }
  }

  /** Whether a call's exchange at its server has been cut. */
  cut(kind: string): boolean {
    return running.get(`${this.#key} ${kind}`)?.response.destroyed ?? false;
  }
}

/** Resolves when streams that are open are joined to whoever knows their credential: a later one's turn has come. */
async function watched({ bearer, revoke }: Holder): Promise<void> {
  const { reader } = await sessionStream('asking', 'change_list', bearer);
  await revoke();
  expect(await reader.message()).toBe(null);
}

/** A holder whose credential is revoked, and others whose streams have nothing to do with that. */
interface Scene extends Holder {
  readonly others: readonly string[];
}

const SCENES: Readonly<Record<string, () => Promise<Scene>>> = {
  'a bearer token is revoked': async () => ({
    ...(await token('ada')),
    others: [(await token('ada')).bearer, (await token('eve')).bearer],
  }),
  'the owner ends a login': async () => {
    const { access } = await loginOf('ada');
    return { bearer: access, revoke: () => endLogin(access), others: [(await loginOf('ada')).access] };
  },
  'the owner ends a login whose client has a fresh token': async () => {
    const { access, refresh } = await loginOf('ada');
    await refreshed(refresh);
    return { bearer: access, revoke: () => endLogin(access), others: [(await loginOf('eve')).access] };
  },
  'a client revokes its refresh token': async () => {
    const { access, refresh } = await loginOf('ada');
    return { bearer: access, revoke: () => revokedByClient(refresh), others: [(await loginOf('ada')).access] };
  },
  'a client revokes its access token': async () => {
    const { access, refresh } = await loginOf('ada');
    const others = [(await refreshed(refresh)).access, (await loginOf('ada')).access];
    return { bearer: access, revoke: () => revokedByClient(access), others };
  },
  // Its name alone is longer, as a part of tokens, than what WebSockets of an object may be tagged with.
  'the owner ends the login of somebody with a long name': async () => {
    const { access } = await loginOf(`ada${'|'.repeat(120)}`);
    return { bearer: access, revoke: () => endLogin(access), others: [(await loginOf('ada')).access] };
  },
};

describe.each(Object.keys(SCENES))('when %s', (name) => {
  const scene = () => (SCENES[name] as (typeof SCENES)[string])();

  test('all its streams end, what runs behind is told as when a client leaves, and other streams live', async () => {
    const { bearer, revoke, others } = await scene();
    const bystanders = await Promise.all(others.map(Streams.open));
    const streams = await Streams.open(bearer);
    await watched(await scene());
    const [ended, arrived] = [edge.origin.ended.length, edge.origin.arrived.length];
    await streams.live(['GET of a session', 'subscriptions/listen', 'HTTP+SSE']);
    await revoke();
    await streams.ended();
    await expect.poll(() => streams.cut('a call of 2026-07-28'), SOON).toBe(true);
    await expect.poll(() => streams.cut('a call of 2026-07-28 at /mcp'), SOON).toBe(true);
    // The session behind HTTP+SSE ends; calls in sessions go on.
    await expect.poll(() => edge.origin.ended.length, SOON).toBe(ended + 1);
    const told = edge.origin.arrived.slice(arrived).map(({ message }) => ('method' in message ? message.method : ''));
    expect(told).not.toContain('notifications/cancelled');
    for (const bystander of bystanders) await bystander.live();
  });

  test('streams that are just open end too', async () => {
    const { bearer, revoke } = await scene();
    const streams = await Streams.open(bearer);
    await revoke();
    await streams.ended();
  });
});

test('an answer that is no stream reaches a call that was let in before', async () => {
  const { bearer, revoke } = await token('ada');
  const answer = callTool(await initialized('notes', bearer), 'later', { key: 'later' });
  await expect.poll(() => running.has('later'), SOON).toBe(true);
  await revoke();
  const { message, response } = running.get('later') as { message: JsonRpcMessage; response: ServerResponse };
  json(response, result(message, { content: [] }));
  expect(await (await answer).json()).toMatchObject({ result: { content: [] } });
});

describe('a credential that expires', () => {
  /** Enough to open two streams on a loaded host. */
  const LIFE_S = 6;
  const clock = () => Math.floor(Date.now() / 1000);

  test.each([
    ['a bearer token', async () => (await token('ada', Date.now() + LIFE_S * 1000)).bearer],
    // Clocks of an issuer and the edge may differ by a minute: until then it is taken, and opens streams.
    ['a JWT', () => issuer.token({ aud: 'moorage', exp: clock() - 60 + LIFE_S })],
  ])('ends the streams that it opened: %s', async (name, made) => {
    const bearer = await made();
    const stream = await sessionStream('asking', 'change_list', bearer);
    const call = await callInSession('notes', 'hold', bearer, name);
    expect(await stream.reader.message()).toBe(null);
    expect(await call.reader.message()).toBe(null);
  });

  test('as an access token of a login ends none: they end with the login', { timeout: 180_000 }, async () => {
    // Nobody shows a bearer token for a minute: the runtime puts the object that knows them to sleep, and wakes it to revoke.
    const sleeping = await token('eve');
    const quiet = await sessionStream('asking', 'change_list', sleeping.bearer);
    const { access, refresh } = await loginOf('ada');
    const client = await initialized('asking', access);
    const stream = new EventReader(await client.get());
    const call = await callInSession('notes', 'hold', access, 'old');
    const modern = await modernCall('notes', 'hold', access, 'modern');
    const statusOf = async (bearer: string) => (await fetch(edge.url, { headers: headersOf(bearer) })).status;
    await expect.poll(() => statusOf(access), { timeout: 2 * ACCESS_LIFE_S * 1000, interval: 500 }).toBe(401);
    for (const { reader, speak } of [call, modern]) {
      await speak();
      expect(await reader.message()).toMatchObject({ result: {} });
    }
    const fresh = new WireClient(() => edge.url, 'asking', headersOf((await refreshed(refresh)).access));
    fresh.session = client.session;
    await (await callTool(fresh, 'change_list')).text();
    expect(await stream.message()).toMatchObject({ method: 'notifications/tools/list_changed' });
    await endLogin(access);
    expect(await stream.message()).toBe(null);
    await sleeping.revoke();
    expect(await quiet.reader.message()).toBe(null);
  });
});
