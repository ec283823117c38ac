/** Who gets in at a real workerd, by each kind of credential, and what those who do not are told. */
import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { auditPage, auditText, brokenAt } from '../../shared/audit.ts';
import { importKey } from '../../shared/grant.ts';
import { signOwnerToken } from '../../shared/owner.ts';
import type { NewToken } from '../../shared/tokens.ts';
import { OidcIssuer } from '../support/oidc.ts';
import { edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { keyPair } from './scripted-origin.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const BASE = 'https://mcp.example.com';

let edge: UnderTest;
let issuer: OidcIssuer;
let ownerToken: (audience?: string) => Promise<string>;

beforeAll(async () => {
  issuer = await OidcIssuer.start();
  const owner = await keyPair();
  const key = await importKey(owner.privateJwk);
  ownerToken = (audience = BASE) => signOwnerToken(key, audience, crypto.randomUUID(), Date.now());
  edge = await edgeUnderTest(
    { time: join(ROOT, 'servers/time.ts') },
    {
      loopbackFetch: true,
      settings: {
        MOORAGE_AUTH: JSON.stringify({ tokens: true, jwt: [{ issuer: issuer.url }] }),
        MOORAGE_AUDIT: '{"payloads":"full"}',
        MOORAGE_PUBLIC_URL: BASE,
        MOORAGE_OWNER_KEY: JSON.stringify(owner.publicJwk),
      },
    },
  );
});
afterAll(async () => {
  issuer.close();
  await edge.stop();
});

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${edge.url}${path}`, { headers });
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe('without a credential', () => {
  test.each([
    ['/notes/mcp', `scope="server:notes", resource_metadata="${BASE}/.well-known/oauth-protected-resource/notes/mcp"`],
    ['/mcp', `scope="mcp", resource_metadata="${BASE}/.well-known/oauth-protected-resource/mcp"`],
    ['/admin/api/whoami', `scope="admin", resource_metadata="${BASE}/.well-known/oauth-protected-resource/admin/api"`],
  ])('%s is refused with a challenge', async (path, challenge) => {
    const response = await get(path);
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe(`Bearer ${challenge}`);
  });

  test('the metadata of a server is its own, and exact', async () => {
    const response = await get('/.well-known/oauth-protected-resource/notes/mcp');
    expect(await response.json()).toEqual({
      resource: `${BASE}/notes/mcp`,
      resource_name: 'Moorage /notes/mcp',
      authorization_servers: [issuer.url],
      scopes_supported: ['server:notes', 'mcp'],
      bearer_methods_supported: ['header'],
    });
  });
});

describe('the owner', () => {
  test('administers', async () => {
    const response = await get('/admin/api/whoami', bearer(await ownerToken()));
    expect(await response.json()).toMatchObject({ subject: 'owner', scopes: ['admin', 'mcp'] });
  });

  test('is not believed by what was signed for another edge', async () => {
    const response = await get('/admin/api/whoami', bearer(await ownerToken('https://other.example')));
    expect(response.status).toBe(401);
  });

  test('is not believed with another key', async () => {
    const key = await importKey((await keyPair()).privateJwk);
    const response = await get('/admin/api/whoami', bearer(await signOwnerToken(key, BASE, 'x', Date.now())));
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toContain('error="invalid_token"');
  });
});

describe('a bearer token', () => {
  let count = 0;
  /** Made by the owner; undefined members are left to their defaults. */
  const created = async (wish: Partial<NewToken> = {}) => {
    const name = `token-${count++}`;
    const response = await fetch(`${edge.url}/admin/api/tokens`, {
      method: 'POST',
      headers: { ...bearer(await ownerToken()), 'content-type': 'application/json' },
      body: JSON.stringify({ name, subject: name, scopes: ['mcp'], groups: [], expiresAt: null, ...wish }),
    });
    expect(response.status).toBe(201);
    return (await response.json()) as { id: string; token: string };
  };
  const revoke = async (id: string) => {
    const headers = bearer(await ownerToken());
    return await fetch(`${edge.url}/admin/api/tokens/${id}`, { method: 'DELETE', headers });
  };
  const clientOf = (token: string) => new WireClient(() => edge.url, 'time', bearer(token));

  test('opens a session, until it is revoked', async () => {
    const { id, token } = await created();
    const client = clientOf(token);
    expect((await client.initialize()).status).toBe(200);
    expect((await revoke(id)).status).toBe(200);
    const refused = await client.post({ jsonrpc: '2.0', id: 1, method: 'ping' });
    expect(refused.status).toBe(401);
    expect(refused.headers.get('www-authenticate')).toContain('error="invalid_token"');
    expect((await revoke(id)).status).toBe(404);
  });

  test('is for its servers alone, and says which scope is missing', async () => {
    const { token } = await created({ scopes: ['server:notes'] });
    const refused = await get('/time/mcp', bearer(token));
    expect(refused.status).toBe(403);
    expect(refused.headers.get('www-authenticate')).toBe(
      `Bearer error="insufficient_scope", scope="server:notes server:time", resource_metadata="${BASE}/.well-known/oauth-protected-resource/time/mcp"`,
    );
    expect(await (await get('/', bearer(token))).json()).toEqual({ servers: [] });
    expect((await get('/admin/api/tokens', bearer(token))).status).toBe(403);
  });

  test('shows /mcp those servers alone', async () => {
    const names = async (scopes: string[]) => {
      const client = new WireClient(() => edge.url, '', bearer((await created({ scopes })).token));
      await client.initialize();
      const { result } = (await client.call('tools/list')) as { result: { tools: { name: string }[] } };
      return result.tools.map(({ name }) => name).filter((name) => name.startsWith('time__')).length > 0;
    };
    expect([await names(['server:time']), await names(['server:notes']), await names(['mcp'])]).toEqual([
      true,
      false,
      true,
    ]);
  });

  test("does not open another principal's session; a fresh one of the same subject does", async () => {
    const [ada, eve] = [await created({ subject: 'ada' }), await created()];
    const client = clientOf(ada.token);
    await client.initialize();
    const other = clientOf(eve.token);
    other.session = client.session;
    expect((await other.post({ jsonrpc: '2.0', id: 1, method: 'ping' })).status).toBe(404);
    await revoke(ada.id);
    const again = clientOf((await created({ subject: 'ada' })).token);
    again.session = client.session;
    expect(await again.call('ping')).toMatchObject({ result: {} });
  });

  test('in a URL is refused, good or not', async () => {
    const { token } = await created();
    expect((await get(`/time/mcp?access_token=${token}`)).status).toBe(400);
  });

  test('is nowhere in what the edge keeps or says', async () => {
    const { token } = await created();
    await clientOf(token).initialize();
    const listed = await (await get('/admin/api/tokens', bearer(await ownerToken()))).text();
    const files = await readdir(edge.stateDir, { recursive: true, withFileTypes: true });
    const kept = files
      .filter((file) => file.isFile())
      .map((file) => readFileSync(join(file.parentPath, file.name), 'latin1'));
    for (const text of [listed, ...edge.log, ...kept]) expect(text.includes(token.slice(13))).toBe(false);
  });
});

describe('a JWT', () => {
  test('of a configured issuer opens what it is meant for, found out by discovery', async () => {
    const token = await issuer.token({ aud: `${BASE}/time/mcp`, scope: 'mcp' });
    const client = new WireClient(() => edge.url, 'time', bearer(token));
    expect((await client.initialize()).status).toBe(200);
    expect((await get('/notes/mcp', bearer(token))).status).toBe(401);
    expect(issuer.asked).toBe(1);
  });

  test('keeps its session when it is renewed', async () => {
    const fresh = () => issuer.token({ aud: BASE, scope: 'server:time', jti: crypto.randomUUID() });
    const client = new WireClient(() => edge.url, 'time', bearer(await fresh()));
    await client.initialize();
    const again = new WireClient(() => edge.url, 'time', bearer(await fresh()));
    again.session = client.session;
    expect(await again.call('ping')).toMatchObject({ result: {} });
  });

  test('of an issuer that nobody configured is not believed', async () => {
    const token = await issuer.token({ iss: 'https://other.example', aud: BASE });
    expect((await get('/time/mcp', bearer(token))).status).toBe(401);
  });
});

describe('the audit', () => {
  const records = async () => {
    const page = auditPage.parse(await (await get('/admin/api/audit', bearer(await ownerToken()))).json());
    expect(await brokenAt(page)).toBe(null);
    return page.entries.map(({ text }) => auditText.parse(JSON.parse(text)));
  };
  /** Nobody waits for a record: it is there soon after. */
  const eventually = (expected: object) => expect.poll(records).toContainEqual(expect.objectContaining(expected));

  test('has denials, logins, tokens and administration, each with who and where', async () => {
    const headers = { ...bearer(await ownerToken()), 'content-type': 'application/json' };
    const body = JSON.stringify({ name: 'seen', subject: 'seen', scopes: ['mcp'], groups: [], expiresAt: null });
    const made = await fetch(`${edge.url}/admin/api/tokens`, { method: 'POST', headers, body });
    const { id, token } = (await made.json()) as { id: string; token: string };
    await new WireClient(() => edge.url, 'time', bearer(token)).initialize();
    await get('/admin/api/tokens', bearer(token));
    await get('/elsewhere/mcp', bearer('moor_of-nobody'));
    await eventually({ kind: 'token', action: 'create', subject: 'owner', detail: expect.objectContaining({ id }) });
    await eventually({ kind: 'admin', action: 'POST /tokens', subject: 'owner' });
    await eventually({ kind: 'login', action: 'token', subject: 'token|seen', credential: `token:${id}` });
    await eventually({ kind: 'denied', action: 'insufficient_scope' });
    await eventually({ kind: 'denied', action: 'authentication_required', server: 'elsewhere', address: '127.0.0.1' });
    expect(JSON.stringify(await records())).not.toContain(token.slice(13));
  });

  test('has calls, with their arguments and results where the owner wants them', async () => {
    const headers = { ...bearer(await ownerToken()), 'content-type': 'application/json' };
    const body = JSON.stringify({ name: 'calls', subject: 'calls', scopes: ['mcp'], groups: [], expiresAt: null });
    const made = await fetch(`${edge.url}/admin/api/tokens`, { method: 'POST', headers, body });
    const client = new WireClient(() => edge.url, 'time', bearer(((await made.json()) as { token: string }).token));
    await client.initialize();
    await client.call('tools/call', { name: 'get_current_time', arguments: { timezone: 'Europe/Zurich' } });
    const detail = { name: 'get_current_time', arguments: '{"timezone":"Europe/Zurich"}', status: 200 };
    await eventually({
      kind: 'call',
      action: 'tools/call',
      subject: 'token|calls',
      server: 'time',
      detail: expect.objectContaining({ ...detail, answer: expect.stringContaining('Zurich') }),
    });
  });
});
