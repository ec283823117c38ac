/**
 * Logging in at the built-in authorization server, with the SDK's client and plain HTTP in the place of a browser: discovery,
 * registration, the page, codes, tokens, refresh, revocation. The real browser is in test/e2e/login.e2e.test.ts.
 */
import { createHash, randomBytes } from 'node:crypto';
import { exportJWK, generateKeyPair } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { importKey } from '../../shared/grant.ts';
import { signOwnerToken } from '../../shared/owner.ts';
import { type Account, APP, GitHubServer } from '../support/github.ts';
import { OidcIssuer } from '../support/oidc.ts';
import { edgeUnderTest, type UnderTest } from './edge-under-test.ts';
import { authorizeUrl, decide, open, pageOf, postToken, REDIRECT, register } from './login-client.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
let edge: UnderTest;
let ownerKey: Awaited<ReturnType<typeof importKey>>;
let clientId: string;

beforeAll(async () => {
  const pair = await generateKeyPair('EdDSA', { extractable: true });
  ownerKey = pair.privateKey;
  edge = await edgeUnderTest(
    { time: `${ROOT}servers/time.ts`, other: `${ROOT}servers/time.ts` },
    {
      settings: {
        MOORAGE_AUTH: JSON.stringify({ oauth: {} }),
        MOORAGE_OWNER_KEY: JSON.stringify(await exportJWK(pair.publicKey)),
      },
    },
  );
  clientId = await register(edge.url);
});
afterAll(() => edge.stop());

const admin = async (method: string, path: string, body?: unknown): Promise<unknown> => {
  const token = await signOwnerToken(ownerKey, edge.url, randomBytes(8).toString('hex'), Date.now());
  const response = await fetch(`${edge.url}/admin/api${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return response.status === 204 ? undefined : await response.json();
};
const loginCode = async (person: object = {}) =>
  ((await admin('POST', '/logins/codes', person)) as { code: string }).code;

/** What a client does before it sends the browser, where it asks for one server. */
const request = (over: Record<string, string> = {}, base = edge.url) =>
  authorizeUrl(base, {
    client_id: clientId,
    scope: 'server:time',
    resource: `${edge.url}/time/mcp`,
    ...over,
  });
const tokenFor = (form: Record<string, string>) => postToken(edge.url, { client_id: clientId, ...form });
/** A whole login. */
async function login(over: Record<string, string> = {}, person: object = {}) {
  const { url, verifier } = request(over);
  const page = await open(url);
  const answered = await decide(url, page, { decision: 'allow', code: await loginCode(person) });
  const back = new URL(answered.onward ?? 'missing:');
  const code = back.searchParams.get('code') ?? '';
  const resource = url.searchParams.get('resource') ?? '';
  const { body } = await tokenFor({
    grant_type: 'authorization_code',
    code,
    redirect_uri: REDIRECT,
    code_verifier: verifier,
    resource,
  });
  return { back, code, verifier, tokens: body };
}
const call = async (server: string, token: string | undefined, base = edge.url) =>
  await fetch(`${base}/${server}/mcp`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'initialize',
      params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } },
    }),
  });

describe('what a client finds', () => {
  test('the way from a refusal to the authorization server', async () => {
    const refused = await call('time', undefined);
    expect(refused.status).toBe(401);
    const [, at] = /resource_metadata="([^"]+)"/.exec(refused.headers.get('www-authenticate') ?? '') ?? [];
    const resource = (await (await fetch(at ?? '')).json()) as { resource: string; authorization_servers: string[] };
    expect(resource).toMatchObject({ resource: `${edge.url}/time/mcp`, authorization_servers: [edge.url] });
    const server = (await (await fetch(`${edge.url}/.well-known/oauth-authorization-server`)).json()) as object;
    expect(server).toMatchObject({
      issuer: edge.url,
      authorization_endpoint: `${edge.url}/authorize`,
      token_endpoint: `${edge.url}/token`,
      registration_endpoint: `${edge.url}/register`,
      code_challenge_methods_supported: ['S256'],
      client_id_metadata_document_supported: true,
      authorization_response_iss_parameter_supported: true,
    });
  });

  test('an edge without it has none of its URLs', async () => {
    const plain = await edgeUnderTest();
    const statuses = ['/authorize', '/callback', '/.well-known/oauth-authorization-server'].map(
      async (path) => (await fetch(plain.url + path)).status,
    );
    expect(await Promise.all(statuses)).toEqual([404, 404, 404]);
    await plain.stop();
  });
});

describe('the page', () => {
  test('shows what is asked, runs nothing of the client and cannot be framed', async () => {
    const page = await open(request().url);
    expect(page.status).toBe(200);
    expect(page.text).toContain('A &lt;b&gt;client&lt;/b&gt;');
    expect(page.text).toContain(`${edge.url}/time/mcp`);
    expect(page.text).toContain('server:time');
    expect(page.text).toContain('127.0.0.1');
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(page.headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
    expect(page.headers.get('x-frame-options')).toBe('DENY');
    expect(page.headers.get('cache-control')).toBe('no-store');
    // With no-referrer browsers post the form with "Origin: null", which is refused.
    expect(page.headers.get('referrer-policy')).toBe('same-origin');
  });

  test.each([
    ['a redirect that was not registered', { redirect_uri: 'https://evil.example/' }],
    ['a redirect that only begins like a registered one', { redirect_uri: `${REDIRECT}/more` }],
    ['a client that is unknown', { client_id: 'nobody' }],
  ])('%s is told here and leads nowhere', async (_, over) => {
    const page = await open(request(over).url);
    expect(page.status).toBe(400);
    expect(page.onward).toBeUndefined();
    expect(page.headers.get('location')).toBeNull();
  });

  test.each([
    ['no PKCE', { code_challenge: '' }],
    ['plain PKCE', { code_challenge_method: 'plain' }],
    ['a resource of another host', { resource: 'https://elsewhere.example/mcp' }],
    ['a resource that is none', { resource: 'not a url' }],
  ])('%s is refused', async (_, over) => {
    const page = await open(request(over).url);
    expect(page.handle).toBe('');
    const said = page.onward ? new URL(page.onward).searchParams.get('error') : page.status;
    expect(['invalid_request', 'invalid_target', 400]).toContain(said);
  });

  test('a denial goes back to the client', async () => {
    const { url } = request();
    const page = await open(url);
    const { onward } = await decide(url, page, { decision: 'deny' });
    const back = new URL(onward ?? '');
    expect(back.origin + back.pathname).toBe(REDIRECT);
    expect(Object.fromEntries(back.searchParams)).toMatchObject({ error: 'access_denied', state: 'of-the-client' });
  });

  test('a form works once, and only in the browser that it was shown to', async () => {
    const { url } = request();
    const page = await open(url);
    const stolen = await decide(url, { ...page, cookies: '' }, { decision: 'allow', code: await loginCode() });
    expect([stolen.status, stolen.onward]).toEqual([400, undefined]);
    const first = await decide(url, page, { decision: 'allow', code: await loginCode() });
    expect(first.onward).toContain('code=');
    const second = await decide(url, page, { decision: 'allow', code: await loginCode() });
    expect([second.status, second.onward]).toEqual([400, undefined]);
  });

  test('a page of another site cannot post the form', async () => {
    const { url } = request();
    const page = await open(url);
    const response = await fetch(url, {
      method: 'POST',
      headers: { cookie: page.cookies, origin: 'https://evil.example' },
      body: new URLSearchParams({ handle: page.handle, decision: 'allow' }),
    });
    expect(response.status).toBe(403);
  });
});

describe('a one-time code', () => {
  test('lets one person in, once, however it is typed', async () => {
    const { url } = request();
    const code = await loginCode();
    const page = await open(url);
    const typed = ` ${code.toLowerCase().replaceAll('-', ' ')} `;
    expect((await decide(url, page, { decision: 'allow', code: typed })).onward).toContain('code=');
    const again = await open(url);
    const refused = await decide(url, again, { decision: 'allow', code });
    expect(refused.status).toBe(403);
    expect(refused.text).toContain('not good (any more)');
    // The page that says so asks again.
    expect((await decide(url, refused, { decision: 'allow', code: await loginCode() })).onward).toContain('code=');
  });
});

describe('a token', () => {
  test('opens what it was asked for and nothing else', async () => {
    const { back, tokens } = await login();
    expect(Object.fromEntries(back.searchParams)).toMatchObject({ state: 'of-the-client', iss: edge.url });
    expect(tokens).toMatchObject({ token_type: 'bearer', scope: 'server:time' });
    expect((await call('time', tokens.access_token)).status).toBe(200);
    expect((await call('other', tokens.access_token)).status).toBe(401);
    const everything = await login({ scope: 'mcp', resource: `${edge.url}/mcp` });
    expect((await call('other', everything.tokens.access_token)).status).toBe(200);
    const admins = await fetch(`${edge.url}/admin/api/whoami`, {
      headers: { authorization: `Bearer ${everything.tokens.access_token}` },
    });
    expect(admins.status).toBe(403);
  });

  test('a code is good once, with its verifier: using it twice ends what it gave', async () => {
    const { url, verifier } = request();
    const page = await open(url);
    const { onward } = await decide(url, page, { decision: 'allow', code: await loginCode() });
    const code = new URL(onward ?? '').searchParams.get('code') ?? '';
    const form = { grant_type: 'authorization_code', code, redirect_uri: REDIRECT, resource: `${edge.url}/time/mcp` };
    expect((await tokenFor({ ...form, code_verifier: 'x'.repeat(43) })).body.error).toBe('invalid_grant');
    const first = await tokenFor({ ...form, code_verifier: verifier });
    const good = first.status === 200 ? first.body : undefined;
    expect((await tokenFor({ ...form, code_verifier: verifier })).body.error).toBe('invalid_grant');
    if (good) expect((await call('time', good.access_token)).status).toBe(401);
  });

  test('is refreshed, with and without naming the resource again', async () => {
    const { tokens } = await login();
    const first = await tokenFor({ grant_type: 'refresh_token', refresh_token: tokens.refresh_token ?? '' });
    expect(first.status).toBe(200);
    const second = await tokenFor({
      grant_type: 'refresh_token',
      refresh_token: first.body.refresh_token ?? '',
      resource: `${edge.url}/time/mcp`,
    });
    expect(second.status).toBe(200);
    expect((await call('time', second.body.access_token)).status).toBe(200);
  });

  test('that somebody approved is in the audit, without the code and the tokens', async () => {
    const { code, tokens } = await login({}, { name: 'audited' });
    // What is written down is waited for by nobody.
    await expect.poll(async () => JSON.stringify(await admin('GET', '/audit'))).toContain('code|audited');
    const text = JSON.stringify(await admin('GET', '/audit'));
    for (const secret of [code, tokens.access_token, tokens.refresh_token]) expect(text).not.toContain(secret);
  });

  test('whose login the owner ends is worth nothing', async () => {
    const { tokens } = await login({}, { name: 'alice', groups: ['eng'] });
    const { logins } = (await admin('GET', '/logins')) as { logins: { id: string; subject: string }[] };
    const found = logins.find(({ subject }) => subject === 'code|alice');
    await admin('DELETE', `/logins/${encodeURIComponent(found?.id ?? '')}`);
    expect((await call('time', tokens.access_token)).status).toBe(401);
    expect((await tokenFor({ grant_type: 'refresh_token', refresh_token: tokens.refresh_token ?? '' })).status).toBe(
      400,
    );
  });
});

describe('an upstream', () => {
  let issuer: OidcIssuer;
  let upstreamEdge: UnderTest;
  beforeAll(async () => {
    issuer = await OidcIssuer.start();
    const upstream = { type: 'oidc', issuer: issuer.url, clientId: 'moorage', allow: ['*@example.com'] };
    upstreamEdge = await edgeUnderTest(
      { time: `${ROOT}servers/time.ts` },
      { loopbackFetch: true, settings: { MOORAGE_AUTH: JSON.stringify({ oauth: { upstream } }) } },
    );
  });
  afterAll(async () => {
    await upstreamEdge.stop();
    issuer.close();
  });

  /** As far as the browser's way back from the upstream. */
  async function sent(claims: object) {
    const client = await register(upstreamEdge.url);
    const resource = `${upstreamEdge.url}/time/mcp`;
    const { url, verifier } = request({ client_id: client, resource }, upstreamEdge.url);
    const page = await open(url);
    expect(page.text).not.toContain('One-time code');
    const { onward, cookies } = await decide(url, page, { decision: 'allow' });
    expect(onward).toContain(`${issuer.url}/authorize?`);
    return { ...issuer.login(onward ?? '', claims as never), cookies, client, verifier, resource };
  }
  const back = async ({ code, state, redirect, cookies }: Awaited<ReturnType<typeof sent>>) => {
    const url = new URL(redirect);
    url.searchParams.set('code', code);
    url.searchParams.set('state', state);
    return await pageOf(await fetch(url, { headers: { cookie: cookies }, redirect: 'manual' }));
  };

  test('says who a person is', async () => {
    const login = await sent({ sub: 'ada', email: 'ada@example.com', email_verified: true, groups: ['eng'] });
    const { onward } = await back(login);
    const code = new URL(onward ?? '').searchParams.get('code') ?? '';
    const form = { grant_type: 'authorization_code', code, redirect_uri: REDIRECT, client_id: login.client };
    const response = await fetch(`${upstreamEdge.url}/token`, {
      method: 'POST',
      body: new URLSearchParams({ ...form, code_verifier: login.verifier, resource: login.resource }),
    });
    const { access_token } = (await response.json()) as { access_token: string };
    const called = await call('time', access_token, upstreamEdge.url);
    expect(called.status).toBe(200);
  });

  test.each([
    ['an address of another host', { sub: 'eve', email: 'eve@example.org', email_verified: true }, 403],
    ['an address that nobody has verified', { sub: 'eve', email: 'eve@example.com' }, 403],
    ['an address of a host that only ends alike', { sub: 'e', email: 'e@notexample.com', email_verified: true }, 403],
    ['a token for another client', { sub: 'ada', aud: 'another' }, 401],
    ['a token with another nonce', { sub: 'ada', nonce: 'another' }, 401],
    ['a token of another issuer', { sub: 'ada', iss: 'https://evil.example' }, 401],
  ])('%s lets nobody in', async (_, claims, status) => {
    const page = await back(await sent(claims));
    expect([page.status, page.onward]).toEqual([status, undefined]);
  });

  test('the way back works once, and only in the browser that was sent', async () => {
    const claims = { sub: 'ada', email: 'ada@example.com', email_verified: true };
    const login = await sent(claims);
    expect((await back({ ...login, cookies: '' })).status).toBe(400);
    expect((await back(login)).onward).toContain('code=');
    expect((await back(login)).status).toBe(400);
  });
});

describe('GitHub', () => {
  let github: GitHubServer;
  let githubEdge: UnderTest;
  beforeAll(async () => {
    github = await GitHubServer.start();
    const upstream = {
      type: 'github',
      url: github.url,
      clientId: APP.clientId,
      allow: ['ada', 'grace', 'renamed'],
      groups: true,
    };
    const access = [
      { who: ['group:acme/ops'], servers: ['time'], effect: 'allow' },
      { who: ['*'], servers: ['other'], effect: 'allow' },
    ];
    githubEdge = await edgeUnderTest(
      { time: `${ROOT}servers/time.ts`, other: `${ROOT}servers/time.ts` },
      {
        loopbackFetch: true,
        secrets: { MOORAGE_UPSTREAM_SECRET: APP.secret },
        settings: { MOORAGE_AUTH: JSON.stringify({ oauth: { upstream } }), MOORAGE_ACCESS: JSON.stringify(access) },
      },
    );
  });
  afterAll(async () => {
    await githubEdge.stop();
    github.close();
  });

  /** As far as GitHub's own page. */
  async function sent(server = 'other') {
    const client = await register(githubEdge.url);
    const resource = `${githubEdge.url}/${server}/mcp`;
    const { url, verifier } = request({ client_id: client, resource, scope: `server:${server}` }, githubEdge.url);
    const page = await open(url);
    expect(page.text).toContain(`GitHub at ${new URL(github.url).host}`);
    const { onward = '', cookies } = await decide(url, page, { decision: 'allow' });
    return { at: onward, cookies, client, verifier, resource, server };
  }
  type Sent = Awaited<ReturnType<typeof sent>>;
  /** What the browser brings back, and the page that it gets. */
  const back = async ({ at, cookies }: Sent, brought: Record<string, string>) => {
    const asked = new URL(at).searchParams;
    const url = new URL(asked.get('redirect_uri') ?? '');
    for (const [name, value] of Object.entries({ state: asked.get('state') ?? '', ...brought })) {
      url.searchParams.set(name, value);
    }
    return await pageOf(await fetch(url, { headers: { cookie: cookies }, redirect: 'manual' }));
  };
  /** A whole login; its access token. */
  async function tokenOf(account: Account, server?: string): Promise<string> {
    const login = await sent(server);
    const { onward, text } = await back(login, { code: github.login(login.at, account).code });
    expect(onward, text).toContain(REDIRECT);
    const response = await fetch(`${githubEdge.url}/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'authorization_code',
        code: new URL(onward ?? '').searchParams.get('code') ?? '',
        redirect_uri: REDIRECT,
        client_id: login.client,
        code_verifier: login.verifier,
        resource: login.resource,
      }),
    });
    return ((await response.json()) as { access_token: string }).access_token;
  }
  /** A session of this token at `other`, and whether another token may go on with it. */
  const session = async (token: string): Promise<string> => {
    const response = await call('other', token, githubEdge.url);
    expect(response.status).toBe(200);
    return response.headers.get('mcp-session-id') ?? '';
  };
  const goesOn = async (token: string, id: string): Promise<number> => {
    const headers = {
      authorization: `Bearer ${token}`,
      'mcp-session-id': id,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
    };
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
    return (await fetch(`${githubEdge.url}/other/mcp`, { method: 'POST', headers, body })).status;
  };

  test('says who a person is, by the number of the account: its name may go to another', async () => {
    const id = await session(await tokenOf({ id: 7, login: 'ada' }));
    // Ada has another name now, and somebody else took hers.
    expect(await goesOn(await tokenOf({ id: 7, login: 'renamed' }), id)).toBe(200);
    expect(await goesOn(await tokenOf({ id: 8, login: 'ada' }), id)).toBe(404);
  });

  test('says which organizations and teams a person is in, however many they are', async () => {
    const many = Array.from({ length: 120 }, (_, n) => `acme/team-${n}`);
    const ops = { id: 9, login: 'grace', organizations: ['acme'], teams: [...many, 'acme/ops'] };
    expect((await call('time', await tokenOf(ops, 'time'), githubEdge.url)).status).toBe(200);
    const others = { ...ops, teams: many };
    expect((await call('time', await tokenOf(others, 'time'), githubEdge.url)).status).toBe(403);
  });

  test('somebody who is not on the list is told so, and the client gets nothing', async () => {
    const login = await sent();
    const page = await back(login, { code: github.login(login.at, { id: 1, login: 'eve' }).code });
    expect([page.status, page.onward]).toEqual([403, undefined]);
    expect(page.text).toContain('not on the list');
  });

  test('a denial there goes back to the client', async () => {
    const page = await back(await sent(), { error: 'access_denied', error_description: 'The user has denied …' });
    const { origin, pathname, searchParams } = new URL(page.onward ?? 'missing:');
    expect(origin + pathname).toBe(REDIRECT);
    expect(Object.fromEntries(searchParams)).toMatchObject({
      error: 'access_denied',
      state: 'of-the-client',
      iss: githubEdge.url,
    });
  });

  test.each([
    ['a code that is none (GitHub says so with status 200)', () => ({ code: 'made-up' })],
    ['a code of another login', (at: string) => ({ code: github.login(withChallenge(at), ADA).code })],
  ])('%s lets nobody in', async (_, brought) => {
    const login = await sent();
    const page = await back(login, brought(login.at));
    expect([page.status, page.onward]).toEqual([401, undefined]);
    expect(page.text).not.toMatch(/bad_verification|planted/);
  });

  test.each([
    ['another state', { state: 'another' }],
    ['a state that was used', {}],
  ])('%s opens nothing', async (_, over) => {
    const login = await sent();
    const brought = () => ({ code: github.login(login.at, ADA).code });
    if (!('state' in over)) expect((await back(login, brought())).onward).toContain(REDIRECT);
    const page = await back(login, { ...brought(), ...over });
    expect([page.status, page.onward]).toEqual([400, undefined]);
  });

  test('no secret of the app, no code and no token of GitHub is in the log', () => {
    expect(github.asked).toContain('/login/oauth/access_token');
    expect(githubEdge.log.join('\n')).not.toMatch(/planted-secret|gho_|code=/);
  });
});

const ADA: Account = { id: 7, login: 'ada' };
/** The same address with the PKCE challenge of somebody else. */
function withChallenge(at: string): string {
  const url = new URL(at);
  url.searchParams.set('code_challenge', createHash('sha256').update('of somebody else').digest('base64url'));
  return url.href;
}

describe('registration', () => {
  test.each([
    ['cursor://anysphere.cursor-mcp/oauth/callback', 'http://localhost/callback'],
    ['com.example.app:/callback', 'https://app.example/callback'],
  ])('%s may stand beside another', async (...redirect_uris) => {
    expect(await register(edge.url, { redirect_uris })).toBeTruthy();
  });

  test.each(['javascript:alert(1)', 'data:text/html,x', 'http://app.example/', 'https://u:p@app.example/#x'])(
    '%s cannot be registered',
    async (uri) => {
      expect(await register(edge.url, { redirect_uris: [uri] })).toBeUndefined();
    },
  );
});
