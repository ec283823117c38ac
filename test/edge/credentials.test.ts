/** Each kind of credential that somebody else vouches for: what is believed, and what is not. No network, no workerd. */
import { generateKeyPair, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { identify } from '../../edge/auth/identify.ts';
import { type Resource, serverResource } from '../../edge/auth/resource.ts';
import type { MoorageError } from '../../shared/errors.ts';
import type { Principal } from '../../shared/principal.ts';
import { OidcIssuer } from '../support/oidc.ts';

const BASE = 'https://mcp.example.com';
const NOTES = `${BASE}/notes/mcp`;

let issuer: OidcIssuer;
let other: OidcIssuer;
/** Signs as Cloudflare Access does. */
let team: OidcIssuer;
beforeAll(async () => {
  issuer = await OidcIssuer.start();
  other = await OidcIssuer.start();
  team = await OidcIssuer.start('RS256');
});
afterAll(() => {
  issuer.close();
  other.close();
  team.close();
});

interface Shown {
  readonly auth: object;
  readonly headers?: Record<string, string>;
  readonly certificate?: unknown;
  readonly resource?: Resource;
}

/** Documents of the issuers, read without a network. */
const fetchText = async (url: string): Promise<string> => {
  const { pathname, hostname } = new URL(url);
  const atAccess = hostname.endsWith('.cloudflareaccess.com');
  const of = atAccess ? team : url.startsWith(other.url) ? other : issuer;
  const text = of.document(atAccess ? '/keys' : pathname);
  if (text === undefined) throw new Error('not there');
  return text;
};

const believed = ({ auth, headers = {}, certificate, resource = serverResource('notes') }: Shown): Promise<Principal> =>
  identify({
    request: new Request(NOTES, { headers }),
    settings: { MOORAGE_AUTH: JSON.stringify(auth), MOORAGE_PUBLIC_URL: BASE },
    resource,
    tokens: { find: () => Promise.resolve(null) },
    validateLogin: () => Promise.resolve(null),
    fetchText,
    certificate,
  });
const refusal = async (shown: Shown): Promise<MoorageError> =>
  believed(shown).then(
    ({ subject }) => Promise.reject(new Error(`"${subject}" was let in`)),
    (error: MoorageError) => error,
  );
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe('a JWT', () => {
  const auth = (rest: object = {}) => ({ jwt: [{ issuer: issuer.url, scopes: ['mcp'], ...rest }] });
  const good = (claims: JWTPayload = {}) => issuer.token({ aud: NOTES, ...claims });

  test('names its subject together with its issuer, its groups, its scopes, and when it ends', async () => {
    const exp = Math.floor(Date.now() / 1000) + 100;
    const token = await good({
      exp,
      jti: 'token-1',
      email: 'ada@example.com',
      groups: ['staff', 7, ''],
      scope: 'openid server:notes unheard-of',
    });
    const principal = await believed({ auth: auth({ scopes: [] }), headers: bearer(token) });
    expect(principal).toMatchObject({
      subject: `${issuer.url}|ada`,
      issuer: issuer.url,
      name: 'ada@example.com',
      groups: ['staff'],
      scopes: ['server:notes'],
      credential: { kind: 'jwt', id: 'token-1', expiresAt: (exp + 60) * 1000 },
    });
  });

  test.each([
    ['the server', NOTES, {}],
    ['the edge', BASE, {}],
    ['the edge, as URLs are written', `${BASE}/`, {}],
    ['several, of which one is the server', ['https://other.example', NOTES], {}],
    ['what the owner says', 'api://moorage', { audience: ['api://moorage'] }],
  ])('may be meant for %s', async (_, aud, rest) => {
    expect(await believed({ auth: auth(rest), headers: bearer(await issuer.token({ aud })) })).toMatchObject({
      subject: `${issuer.url}|ada`,
    });
  });

  test('may name groups deep inside', async () => {
    const token = await good({ realm_access: { roles: ['ops'] }, 'https://x.example/groups': 'one' });
    const groups = async (groupsClaim: string) =>
      (await believed({ auth: auth({ groupsClaim }), headers: bearer(token) })).groups;
    expect(await groups('realm_access.roles')).toEqual(['ops']);
    expect(await groups('https://x.example/groups')).toEqual(['one']);
    expect(await groups('__proto__.x')).toEqual([]);
  });

  test('of a new key is believed at once; unknown keys do not make the issuer be asked again and again', async () => {
    const fresh = await OidcIssuer.start();
    const own = { jwt: [{ issuer: fresh.url, jwks: `${fresh.url}/keys`, scopes: ['mcp'] }] };
    const read = (url: string) => Promise.resolve(fresh.document(new URL(url).pathname) ?? '');
    const ask = async (token: string) =>
      await identify({
        request: new Request(NOTES, { headers: bearer(token) }),
        settings: { MOORAGE_AUTH: JSON.stringify(own), MOORAGE_PUBLIC_URL: BASE },
        resource: serverResource('notes'),
        tokens: { find: () => Promise.resolve(null) },
        validateLogin: () => Promise.resolve(null),
        fetchText: read,
        certificate: undefined,
      });
    await ask(await fresh.token({ aud: NOTES }));
    expect(fresh.asked).toBe(1);
    for (let n = 0; n < 20; n++) {
      await expect(ask(await fresh.token({ aud: NOTES }, { kid: `made-up-${n}` }))).rejects.toThrow('no such key');
    }
    expect(fresh.asked).toBe(1);
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 31_000 });
    await fresh.rotate();
    expect((await ask(await fresh.token({ aud: NOTES }))).subject).toBe(`${fresh.url}|ada`);
    expect(fresh.asked).toBe(2);
    vi.useRealTimers();
    fresh.close();
  });

  const seconds = () => Math.floor(Date.now() / 1000);
  test.each<[string, () => Promise<string>, RegExp]>([
    ['that nobody signed (alg none)', async () => new UnsecuredJWT({ iss: issuer.url, aud: NOTES }).encode(), /alg/],
    ['that names its key as a secret (HS256)', hs256, /alg/],
    ['signed by another key', async () => issuer.token({ aud: NOTES }, {}, await strangerKey()), /signature/],
    ['that names a key the issuer lacks', () => issuer.token({ aud: NOTES }, { kid: '../keys/0' }), /kid/],
    ['that brings its own key along', jwkInHeader, /signature/],
    ['that has expired', () => good({ exp: seconds() - 61 }), /expired/],
    ['that never expires', () => good({ exp: undefined as never }), /"exp"/],
    ['that is not good yet', () => good({ nbf: seconds() + 120 }), /"nbf"/],
    ['for another server of this edge', () => good({ aud: `${BASE}/other/mcp` }), /aud/],
    ['for /mcp', () => good({ aud: `${BASE}/mcp` }), /aud/],
    ['for the server with a slash too many', () => good({ aud: `${NOTES}/` }), /aud/],
    ['for the server in other letters', () => good({ aud: NOTES.toUpperCase() }), /aud/],
    ['for nobody', () => issuer.token({}), /"aud"|aud/],
    ['of nobody', () => good({ sub: '' }), /names nobody/],
    ['of a name with a look-alike letter', () => good({ sub: 'аda' }), /names nobody/],
    ['of a name with a line break', () => good({ sub: 'ada\r\nx: y' }), /names nobody/],
    ['of another issuer', () => other.token({ aud: NOTES }), /Nobody here knows/],
    ['of another issuer that names this one', async () => other.token({ iss: issuer.url, aud: NOTES }), /kid/],
    ['that is none', async () => 'a.b.c', /Nobody here knows/],
    ['that was changed', async () => `${await good()}x`, /signature|JWS/],
  ])('%s is not believed', async (_, token, why) => {
    const error = await refusal({ auth: auth(), headers: bearer(await token()) });
    expect(error.code).toBe('authentication_required');
    expect(error.message).toMatch(why);
    expect(error.data).toMatchObject({ error: 'invalid_token' });
  });

  test('of an issuer that cannot be asked is not called bad', async () => {
    const away = { jwt: [{ issuer: `${issuer.url}/tenant`, scopes: ['mcp'] }] };
    const token = await issuer.token({ iss: `${issuer.url}/tenant`, aud: NOTES });
    await expect(believed({ auth: away, headers: bearer(token) })).rejects.toThrow('not there');
  });

  async function hs256(): Promise<string> {
    const secret = new TextEncoder().encode(issuer.document('/keys'));
    return await new SignJWT({ iss: issuer.url, aud: NOTES, sub: 'ada' })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime('5m')
      .sign(secret);
  }
  async function strangerKey() {
    return (await generateKeyPair('ES256')).privateKey;
  }
  async function jwkInHeader(): Promise<string> {
    const key = await strangerKey();
    return await issuer.token({ aud: NOTES }, { jku: 'https://evil.example/keys', x5u: 'https://evil.example' }, key);
  }
});

describe('Cloudflare Access', () => {
  const audience = 'a'.repeat(64);
  const auth = { access: { team: 'example', audience } };
  const iss = 'https://example.cloudflareaccess.com';
  const assertion = (by: OidcIssuer, claims: JWTPayload = {}) => by.token({ iss, aud: audience, ...claims });
  const shown = async (by: OidcIssuer, claims: JWTPayload = {}) => ({
    auth,
    headers: { 'cf-access-jwt-assertion': await assertion(by, claims) },
  });

  test('vouches for people, by their subject, and for services, by their name', async () => {
    expect(await believed(await shown(team, { email: 'ada@example.com', groups: ['staff'] }))).toMatchObject({
      subject: `${iss}|ada`,
      name: 'ada@example.com',
      groups: ['staff'],
      scopes: ['mcp'],
    });
    expect(await believed(await shown(team, { sub: '', common_name: 'ci.access' }))).toMatchObject({
      subject: `${iss}|service:ci.access`,
    });
  });

  test.each<[string, JWTPayload, RegExp]>([
    ['another application', { aud: 'b'.repeat(64) }, /aud/],
    ['another team', { iss: 'https://evil.cloudflareaccess.com' }, /iss/],
    ['nobody', { sub: '' }, /names nobody/],
  ])('is not believed for %s', async (_, claims, why) => {
    expect((await refusal(await shown(team, claims))).message).toMatch(why);
  });

  test('is not believed in another algorithm than its own', async () => {
    expect((await refusal(await shown(issuer))).message).toMatch(/alg/);
  });

  test('that is not configured is not asked', async () => {
    const headers = { 'cf-access-jwt-assertion': await assertion(team) };
    expect((await refusal({ auth: { tokens: true }, headers })).data.error).toBe(undefined);
  });
});

describe('a certificate', () => {
  const fingerprint = 'ab'.repeat(32);
  const auth = {
    mtls: {
      clients: [
        {
          name: 'ci',
          fingerprint: fingerprint.toUpperCase().replaceAll(/(..)(?!$)/g, '$1:'),
          scopes: ['server:notes'],
        },
        { name: 'ops', subject: 'CN=ops,O=Example', groups: ['ops'] },
      ],
    },
  };
  const shown = {
    certPresented: '1',
    certVerified: 'SUCCESS',
    certRevoked: '0',
    certFingerprintSHA256: fingerprint,
    certSubjectDNRFC2253: 'CN=whoever',
    certNotAfter: 'Dec 22 19:39:00 2038 GMT',
  };

  test.each([
    ['its fingerprint', {}, { subject: 'mtls|ci', scopes: ['server:notes'], credential: { id: fingerprint } }],
    [
      'its subject',
      { certFingerprintSHA256: '00', certSubjectDNRFC2253: 'CN=ops,O=Example' },
      { subject: 'mtls|ops', scopes: ['mcp'], groups: ['ops'] },
    ],
  ])('is known by %s', async (_, change, expected) => {
    expect(await believed({ auth, certificate: { ...shown, ...change } })).toMatchObject(expected);
  });

  test.each([
    ['that no trusted authority signed', { certVerified: 'FAILED:self signed certificate' }, /trusted/],
    ['that was revoked', { certRevoked: '1' }, /trusted/],
    ['of somebody else', { certFingerprintSHA256: 'cd'.repeat(32) }, /among those/],
    ['with a longer subject', { certFingerprintSHA256: '0', certSubjectDNRFC2253: 'CN=ops,O=Example,C=X' }, /among/],
  ])('%s is not believed', async (_, change, why) => {
    expect((await refusal({ auth, certificate: { ...shown, ...change } })).message).toMatch(why);
  });

  test.each([undefined, { certPresented: '0', certVerified: 'NONE' }])('%j is none', async (certificate) => {
    expect((await refusal({ auth, certificate })).message).toMatch(/Say who you are/);
  });
});

describe('kinds together', () => {
  let auth: object;
  beforeEach(() => {
    auth = { tokens: true, loopback: true, jwt: [{ issuer: issuer.url, scopes: ['mcp'] }] };
  });

  test('a credential that is not good is refused, even where none is needed', async () => {
    const attempt = identify({
      request: new Request('http://localhost/notes/mcp', { headers: bearer(`moor_${'x'.repeat(46)}`) }),
      settings: { MOORAGE_AUTH: JSON.stringify(auth) },
      resource: serverResource('notes'),
      tokens: { find: () => Promise.resolve(null) },
      validateLogin: () => Promise.resolve(null),
      fetchText,
      certificate: undefined,
    });
    await expect(attempt).rejects.toThrow('not known here');
  });
});
