/**
 * Attacks, one a row: what is tried, and the line of defence that it meets. `docs/threat-model.md` says who would try them.
 *
 * A row fails when the attack succeeds. Most end in a status (and a stable code where the refusal has one).
 */
import { createHash, createHmac, randomBytes } from 'node:crypto';
import { exportJWK, exportSPKI, generateKeyPair, importJWK, SignJWT, UnsecuredJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { signGrant, signLinkToken } from '../../shared/grant.ts';
import { MESSAGES_PATH } from '../../shared/origin-api.ts';
import { PROOF_HEADER, signProof } from '../../shared/proof.ts';
import { WireClient } from '../edge/edge-under-test.ts';
import { keyPair, ScriptedLink } from '../edge/scripted-origin.ts';
import { bearer, startTarget, type Target } from './target.ts';

let t: Target;
beforeAll(async () => {
  t = await startTarget();
}, 120_000);
afterAll(() => t.stop());

type Row = readonly [attack: string, defence: string, run: () => Promise<unknown>, outcome: unknown];

let rows = 0;

/** Runs a table; `outcome` is what `run` must resolve with. */
function attacks(title: string, table: readonly Row[]): void {
  rows += table.length;
  describe(title, () => {
    test.each(table)('%s: %s', async (_attack, _defence, run, outcome) => {
      expect(await run()).toEqual(outcome);
    });
  });
}

const status = async (response: Response | Promise<Response>) => (await response).status;
const code = async (response: Response | Promise<Response>) => {
  const body = (await (await response).json()) as { error?: { data?: { code?: string }; code?: unknown } };
  return body.error?.data?.code ?? body.error?.code ?? 'none';
};
const both = async (response: Promise<Response>) => {
  const answered = await response;
  return [answered.status, await code(answered)];
};
const ping = { jsonrpc: '2.0', id: 1, method: 'ping' } as const;
const initialize = (token: string, server = 'notes') => t.client(server, token).initialize();
/** An access token of the trusted issuer, with claims of the attacker's choice. */
const jwt = (claims: object, header: object = {}) =>
  t.issuer.token({ aud: t.edge.url, ...claims } as never, header as never);
const post = (path: string, body: string | Uint8Array, headers: Record<string, string> = {}) =>
  fetch(t.edge.url + path, {
    method: 'POST',
    headers: {
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
      ...bearer(t.alice.token),
      ...headers,
    },
    body: body as BodyInit,
  });
/** A message to a fresh session of alice. */
const inSession = async (body: string | Uint8Array, headers: Record<string, string> = {}) => {
  const { session = '' } = await t.session();
  return await post('/notes/mcp', body, { 'mcp-session-id': session, ...headers });
};

attacks('tokens of an issuer', [
  [
    'alg "none"',
    'algorithms are allow-listed',
    async () => {
      const token = new UnsecuredJWT({ sub: 'ada', scope: 'mcp' }).setIssuer(t.issuer.url).setAudience(t.edge.url);
      return status(initialize(token.setExpirationTime('5m').encode()));
    },
    401,
  ],
  [
    'HS256 with the public key as the secret',
    'only asymmetric algorithms',
    async () => {
      const { keys } = JSON.parse(t.issuer.document('/keys') ?? '') as { keys: [Record<string, string>] };
      const spki = await exportSPKI((await importJWK(keys[0], 'RS256', { extractable: true })) as never);
      const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
      const now = Math.floor(Date.now() / 1000);
      const signed = `${part({ alg: 'HS256', kid: keys[0].kid })}.${part({ iss: t.issuer.url, sub: 'ada', aud: t.edge.url, scope: 'mcp', iat: now, exp: now + 300 })}`;
      return status(initialize(`${signed}.${createHmac('sha256', spki).update(signed).digest('base64url')}`));
    },
    401,
  ],
  [
    'a key of the attacker',
    'signatures are checked against the pinned issuer',
    async () => {
      const { privateKey } = await generateKeyPair('RS256');
      return status(initialize(await t.issuer.token({ aud: t.edge.url }, {}, privateKey)));
    },
    401,
  ],
  [
    'another issuer',
    'issuers are named by the owner',
    async () => status(initialize(await jwt({ iss: 'https://evil.example' }))),
    401,
  ],
  [
    'another audience',
    'the audience is checked (RFC 8707)',
    async () => status(initialize(await jwt({ aud: 'https://other.example' }))),
    401,
  ],
  [
    'a token for another server',
    'the audience names one server',
    async () => status(initialize(await jwt({ aud: `${t.edge.url}/bank/mcp` }))),
    401,
  ],
  ['no audience', 'the audience is required', async () => status(initialize(await jwt({ aud: undefined }))), 401],
  [
    'an expired token',
    'expiry is checked',
    async () => status(initialize(await jwt({ exp: Math.floor(Date.now() / 1000) - 600 }))),
    401,
  ],
  [
    'a token that never expires',
    'expiry is required',
    async () => status(initialize(await jwt({ exp: undefined }))),
    401,
  ],
  [
    'a token from the future',
    'nbf is checked',
    async () => status(initialize(await jwt({ nbf: Math.floor(Date.now() / 1000) + 3600 }))),
    401,
  ],
  [
    'kid as a path',
    "kid only selects among the issuer's keys",
    async () => status(initialize(await jwt({}, { kid: '../../../../dev/null' }))),
    401,
  ],
  [
    'kid as SQL',
    "kid only selects among the issuer's keys",
    async () => status(initialize(await jwt({}, { kid: "' UNION SELECT 'x" }))),
    401,
  ],
  [
    'jku and x5u lead to the attacker',
    'addresses in a header are never followed',
    async () => {
      const { privateKey } = await generateKeyPair('RS256');
      const header = { kid: 'evil', jku: 'https://evil.example/keys', x5u: 'https://evil.example/cert' };
      return status(initialize(await t.issuer.token({ aud: t.edge.url }, header, privateKey)));
    },
    401,
  ],
  [
    "the attacker's key in the header",
    'a jwk in a header is never believed',
    async () => {
      const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
      return status(
        initialize(await t.issuer.token({ aud: t.edge.url }, { jwk: await exportJWK(publicKey) }, privateKey)),
      );
    },
    401,
  ],
  [
    'a critical header that nobody knows',
    'crit is honoured (RFC 7515, section 4.1.11)',
    async () => {
      const [, payload = '', signature = ''] = (await jwt({})).split('.');
      const { keys } = JSON.parse(t.issuer.document('/keys') ?? '') as { keys: [{ kid: string }] };
      const header = Buffer.from(JSON.stringify({ alg: 'RS256', kid: keys[0].kid, crit: ['x'], x: 1 })).toString(
        'base64url',
      );
      return status(initialize(`${header}.${payload}.${signature}`));
    },
    401,
  ],
  [
    'a changed payload',
    'the signature covers it',
    async () => {
      const [header = '', , signature = ''] = (await jwt({})).split('.');
      const payload = Buffer.from(
        JSON.stringify({ iss: t.issuer.url, sub: 'root', aud: t.edge.url, scope: 'mcp admin', exp: 9e9 }),
      ).toString('base64url');
      return status(initialize(`${header}.${payload}.${signature}`));
    },
    401,
  ],
  [
    'a subject that imitates one of another issuer',
    'subjects name their issuer',
    async () => {
      const token = await jwt({ sub: `x|token|alice` });
      const session = await t.session();
      return status(
        post('/notes/mcp', JSON.stringify(ping), { 'mcp-session-id': session.session ?? '', ...bearer(token) }),
      );
    },
    404,
  ],
  [
    'rights that the token gives itself',
    'administration needs its own scope, which policy never adds',
    async () =>
      status(
        fetch(`${t.edge.url}/admin/api/tokens`, { headers: bearer(await jwt({ groups: ['admin'], scp: ['ADMIN'] })) }),
      ),
    403,
  ],
]);

attacks('tokens and keys of ours', [
  ['no credential', 'nobody is let in without one', () => status(post('/notes/mcp', '{}', { authorization: '' })), 401],
  [
    'Basic authentication',
    'bearer only',
    () => status(post('/notes/mcp', '{}', { authorization: 'Basic YWxpY2U6cHc=' })),
    401,
  ],
  [
    'a token in the query string',
    'refused before it is looked at: URLs end up in logs',
    () => status(fetch(`${t.edge.url}/notes/mcp?access_token=${t.alice.token}`, { method: 'POST' })),
    400,
  ],
  [
    'a guessed secret for a known id',
    'the answer is that for an unknown id, byte for byte',
    async () => {
      const answer = async (token: string) => await (await initialize(token)).text();
      const { token } = t.alice;
      const other = await answer(`${token.slice(0, -8)}${'A'.repeat(8)}`);
      return other === (await answer(`${token.slice(0, 6)}${'B'.repeat(token.length - 6)}`));
    },
    true,
  ],
  ['a token in other case', 'compared exactly', () => status(initialize(t.alice.token.toUpperCase())), 401],
  [
    'a revoked token',
    'one object knows which live',
    async () => {
      const made = (await (
        await t.admin('POST', '/tokens', {
          name: 'gone',
          subject: 'gone',
          scopes: ['mcp'],
          groups: [],
          expiresAt: null,
        })
      ).json()) as { id: string; token: string };
      await t.admin('DELETE', `/tokens/${made.id}`);
      return status(initialize(made.token));
    },
    401,
  ],
  ['a token for one server at another', 'scopes name servers', () => status(initialize(t.mallory.token, 'bank')), 403],
  [
    "a user's token at the administration",
    'its own scope',
    () => status(fetch(`${t.edge.url}/admin/api/tokens`, { headers: bearer(t.alice.token) })),
    403,
  ],
  [
    "the owner's token, signed by another",
    "the owner's key is pinned",
    async () => {
      const key = (await importJWK((await keyPair()).privateJwk, 'EdDSA')) as CryptoKey;
      const forged = await new SignJWT({})
        .setProtectedHeader({ alg: 'EdDSA', typ: 'moorage-owner+jwt' })
        .setIssuer('owner')
        .setAudience('moorage-edge')
        .setJti('x')
        .setIssuedAt()
        .setExpirationTime('1m')
        .sign(key);
      return status(fetch(`${t.edge.url}/admin/api/whoami`, { headers: bearer(forged) }));
    },
    401,
  ],
  [
    "an edge's grant as a client's token",
    'each kind of statement has its type',
    async () => {
      const key = (await importJWK((await keyPair()).privateJwk, 'EdDSA')) as CryptoKey;
      const grant = { origin: 'local', principal: 'root', server: 'notes', machine: 'notes', session: 's' };
      return status(initialize(await signGrant(key, grant, Date.now())));
    },
    401,
  ],
  ['a token of 64 kB', 'bounded before it is read', () => status(initialize(`moor_${'A'.repeat(9_000)}`)), 401],
]);

attacks('sessions', [
  [
    'another principal with a known session id (POST)',
    'sessions belong to a principal',
    async () => {
      const { session = '' } = await t.session();
      return both(post('/notes/mcp', JSON.stringify(ping), { 'mcp-session-id': session, ...bearer(t.mallory.token) }));
    },
    [404, 'session_not_found'],
  ],
  [
    '… listens to it (GET)',
    'sessions belong to a principal',
    async () => {
      const { session = '' } = await t.session();
      const headers = { accept: 'text/event-stream', 'mcp-session-id': session, ...bearer(t.mallory.token) };
      return status(fetch(`${t.edge.url}/notes/mcp`, { headers }));
    },
    404,
  ],
  [
    '… ends it (DELETE)',
    'sessions belong to a principal',
    async () => {
      const alice = await t.session();
      const headers = { 'mcp-session-id': alice.session ?? '', ...bearer(t.mallory.token) };
      const answered = await status(fetch(`${t.edge.url}/notes/mcp`, { method: 'DELETE', headers }));
      return [answered, (await alice.post(ping)).status];
    },
    [404, 200],
  ],
  [
    '… resumes its stream',
    'event ids are looked up within the session',
    async () => {
      const { session = '' } = await t.session();
      const headers = {
        accept: 'text/event-stream',
        'mcp-session-id': session,
        'last-event-id': 'o.aaaaaaaaaa.1',
        ...bearer(t.mallory.token),
      };
      return status(fetch(`${t.edge.url}/notes/mcp`, { headers }));
    },
    404,
  ],
  [
    'a made-up session id',
    'ids carry a tag of the edge',
    () => status(post('/notes/mcp', JSON.stringify(ping), { 'mcp-session-id': randomBytes(24).toString('base64url') })),
    404,
  ],
  [
    'a session id of another server',
    "the tag is over the server's name",
    async () => {
      const { session = '' } = await t.session();
      return status(post('/bank/mcp', JSON.stringify(ping), { 'mcp-session-id': session }));
    },
    404,
  ],
  [
    'a session id that the attacker fixes',
    'initialize always mints one',
    async () => {
      const client = t.client('notes', t.alice.token);
      client.session = 'fixed-by-the-attacker';
      await client.initialize();
      return client.session === 'fixed-by-the-attacker';
    },
    false,
  ],
  [
    'two principals at one server of the stateless era',
    "a lane is one principal's",
    async () => {
      const before = t.edge.origin.arrived.length;
      for (const { token } of [t.alice, t.mallory]) {
        await post('/notes/mcp', modern('tools/list'), {
          'mcp-protocol-version': '2026-07-28',
          'mcp-method': 'tools/list',
          ...bearer(token),
        });
      }
      const lanes = t.edge.origin.arrived.slice(before).map(({ grant }) => grant.session);
      return [lanes.length >= 2, new Set(lanes).size >= 2];
    },
    [true, true],
  ],
]);

const modern = (method: string, params: object = {}) =>
  JSON.stringify({
    jsonrpc: '2.0',
    id: 1,
    method,
    params: {
      ...params,
      _meta: {
        'io.modelcontextprotocol/protocolVersion': '2026-07-28',
        'io.modelcontextprotocol/clientCapabilities': {},
        'io.modelcontextprotocol/clientInfo': { name: 'x', version: '1' },
      },
    },
  });

/** A request to the agent, as whoever sits at the tunnel's far end could make it. */
interface Forged {
  readonly grant?: Partial<Parameters<typeof signGrant>[1]>;
  readonly grantKey?: CryptoKey;
  readonly proofKey?: CryptoKey;
  readonly sent?: string;
  readonly addedHeaders?: Record<string, string>;
  readonly withoutProof?: boolean;
  readonly at?: number;
  readonly id?: string;
}
async function toAgent({
  grant,
  grantKey,
  proofKey,
  sent,
  addedHeaders = {},
  withoutProof,
  at = Date.now(),
  id,
}: Forged = {}) {
  const { base, key } = t.origin;
  const claims = { origin: 'o', principal: 'p', server: 'notes', machine: 'notes', session: 's', ...grant };
  const token = await signGrant(grantKey ?? key, claims, at);
  const meant = JSON.stringify({
    jsonrpc: '2.0',
    id: 1,
    method: 'initialize',
    params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } },
  });
  const headers = new Headers({ 'content-type': 'application/json', ...bearer(token) });
  const asked = {
    method: 'POST',
    path: MESSAGES_PATH,
    headers: [...headers],
    grant: token,
    body: new TextEncoder().encode(meant),
  };
  const proof = await signProof(proofKey ?? key, 'o', asked, id ?? crypto.randomUUID(), at);
  if (!withoutProof) headers.set(PROOF_HEADER, proof);
  for (const [name, value] of Object.entries(addedHeaders)) headers.set(name, value);
  return await fetch(base + MESSAGES_PATH, { method: 'POST', headers, body: sent ?? meant });
}
const strange = async () => (await generateKeyPair('EdDSA')).privateKey;

attacks('between edge and origin', [
  ['(the honest request)', 'is answered', () => status(toAgent()), 200],
  ['a grant without a proof', 'a grant alone is of no use', () => status(toAgent({ withoutProof: true })), 401],
  [
    'a request sent twice',
    'a proof is taken once',
    async () => {
      const id = crypto.randomUUID();
      return [await status(toAgent({ id })), await status(toAgent({ id }))];
    },
    [200, 401],
  ],
  [
    'a body changed on the way',
    'the proof covers it',
    () => status(toAgent({ sent: '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' })),
    401,
  ],
  [
    'a header of ours added on the way',
    'the proof covers them',
    () => status(toAgent({ addedHeaders: { 'moorage-replay': '1' } })),
    401,
  ],
  [
    'a grant for another origin',
    'the audience is the origin',
    () => status(toAgent({ grant: { origin: 'elsewhere' } })),
    401,
  ],
  [
    'a grant of another edge',
    "the edge's key is pinned",
    async () => status(toAgent({ grantKey: await strange() })),
    401,
  ],
  [
    "a stolen grant with a proof of one's own",
    "proofs are the edge's to sign",
    async () => status(toAgent({ proofKey: await strange() })),
    401,
  ],
  ['an old request', 'minutes', () => status(toAgent({ at: Date.now() - 15 * 60_000 })), 401],
  [
    'a request from the future',
    'clocks may differ by a minute',
    () => status(toAgent({ at: Date.now() + 15 * 60_000 })),
    401,
  ],
  [
    "a machine that is not the server's",
    'the origin makes the key itself',
    () => status(toAgent({ grant: { machine: 'bank' } })),
    409,
  ],
  [
    'a machine as a path',
    'the origin makes the key itself',
    () => status(toAgent({ grant: { machine: '../../etc' } })),
    409,
  ],
  [
    "an origin with another's key",
    "each origin's key is pinned",
    async () =>
      ScriptedLink.dial(t.edge.url, 'local', (await keyPair()).privateJwk).then(
        () => 'in',
        (error: Error) => error.message.includes('401'),
      ),
    true,
  ],
  [
    'an origin that nobody enrolled',
    'only known origins dial',
    async () =>
      ScriptedLink.dial(t.edge.url, 'stranger', (await keyPair()).privateJwk).then(
        () => 'in',
        (error: Error) => error.message.includes('401'),
      ),
    true,
  ],
  [
    'a link token as a grant',
    'types and audiences differ',
    async () => {
      const token = await signLinkToken(t.origin.key, 'o', Date.now());
      return status(fetch(t.origin.base + MESSAGES_PATH, { method: 'POST', headers: bearer(token), body: '{}' }));
    },
    401,
  ],
  [
    'an enrolment with a guessed code',
    'codes have 128 bits and are stored as hashes',
    async () => {
      const { publicJwk } = await keyPair();
      const { kty, crv, x } = publicJwk;
      return status(
        post('/_origin/enrol', JSON.stringify({ id: 'evil', secret: 'A'.repeat(22), key: { kty, crv, x } }), {
          authorization: '',
        }),
      );
    },
    401,
  ],
]);

const http = (head: string, body = '') => `${head}\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n${body}`;
const firstLine = async (bytes: string) => (await t.raw(bytes)).split('\r\n')[0] ?? '';

attacks('HTTP', [
  [
    'Content-Length against Transfer-Encoding',
    'one request is read, or none',
    async () => {
      const smuggled = `POST /notes/mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /admin/api/tokens HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`;
      return (await t.raw(smuggled)).includes('"tokens"');
    },
    false,
  ],
  [
    'two Content-Lengths',
    'refused',
    async () =>
      /^HTTP\/1\.1 200/.test(
        await firstLine(
          'POST /notes/mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\ncontent-length: 5\r\n\r\nhello',
        ),
      ),
    false,
  ],
  [
    'a header of 2 MB',
    'bounded by the runtime',
    async () =>
      /^HTTP\/1\.1 200/.test(
        await firstLine(http(`GET /healthz HTTP/1.1\r\nx: ${'a'.repeat(2 << 20)}`)).catch(() => 'cut'),
      ),
    false,
  ],
  [
    'a foreign name (DNS rebinding)',
    'Host is checked',
    async () =>
      firstLine('GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n').then((line) =>
        line.includes('403'),
      ),
    true,
  ],
  [
    'X-Forwarded-Host',
    'not believed',
    async () => {
      const refused = await post('/notes/mcp', '{}', { authorization: '', 'x-forwarded-host': 'evil.example' });
      return refused.headers.get('www-authenticate')?.includes('evil.example');
    },
    false,
  ],
  [
    'a web page of another site',
    'Origin is checked',
    () => status(post('/notes/mcp', JSON.stringify(ping), { origin: 'https://evil.example' })),
    403,
  ],
  [
    'a sandboxed frame (Origin: null)',
    'Origin is checked',
    () => status(post('/notes/mcp', JSON.stringify(ping), { origin: 'null' })),
    403,
  ],
  [
    'an Origin that begins like ours',
    'compared as an origin',
    () => status(post('/notes/mcp', JSON.stringify(ping), { origin: 'http://127.0.0.1.evil.example' })),
    403,
  ],
  [
    'reading across sites',
    'no CORS for others',
    async () =>
      (await fetch(`${t.edge.url}/healthz`, { headers: { origin: 'https://evil.example' } })).headers.get(
        'access-control-allow-origin',
      ),
    null,
  ],
  [
    'a form posted to the administration',
    'JSON only, which no form can send',
    async () =>
      status(
        fetch(`${t.edge.url}/admin/api/tokens`, {
          method: 'POST',
          headers: { ...bearer(await t.ownerToken()), 'content-type': 'application/x-www-form-urlencoded' },
          body: 'name=x',
        }),
      ),
    415,
  ],
  [
    "path traversal in a server's name",
    'names are matched, never joined to a path',
    async () => (await t.raw(http('GET /..%2f..%2fetc%2fpasswd/mcp HTTP/1.1'))).includes('root:'),
    false,
  ],
  [
    'a dotted path to the administration',
    'the same guard for every spelling',
    async () => firstLine(http('GET /notes/../admin/api/tokens HTTP/1.1')).then((line) => / 40[14] /.test(line)),
    true,
  ],
  [
    "a server's name with a look-alike letter",
    'compared exactly',
    () => status(initialize(t.alice.token, `n${encodeURIComponent('о')}tes`)),
    404,
  ],
  ['__proto__ as a server', 'own members only', () => status(initialize(t.alice.token, '__proto__')), 404],
  ['constructor as a server', 'own members only', () => status(initialize(t.alice.token, 'constructor')), 404],
  [
    'TRACE',
    'three methods',
    async () => firstLine(http('TRACE /notes/mcp HTTP/1.1')).then((line) => /40[0-9]|501/.test(line)),
    true,
  ],
  [
    'X-HTTP-Method-Override',
    'not believed',
    async () => {
      const { session = '' } = await t.session();
      await post('/notes/mcp', JSON.stringify(ping), { 'mcp-session-id': session, 'x-http-method-override': 'DELETE' });
      return status(post('/notes/mcp', JSON.stringify(ping), { 'mcp-session-id': session }));
    },
    200,
  ],
  [
    'headers that speak for the edge',
    "none of the client's travels on",
    async () => {
      const before = t.edge.origin.arrived.length;
      await inSession(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'x' } }), {
        'moorage-replay': '1',
        'moorage-era': 'modern',
        cookie: 'a=b',
        'x-real-ip': '1.2.3.4',
      });
      const { headers, replay } = t.edge.origin.arrived.slice(before).at(-1) ?? {
        headers: {} as Record<string, string | undefined>,
        replay: true,
      };
      return [
        replay,
        headers['moorage-era'],
        headers.cookie,
        headers['x-real-ip'],
        headers.authorization?.includes(t.alice.token),
      ];
    },
    [false, undefined, undefined, undefined, false],
  ],
  [
    'markup in an error',
    'answers are JSON, never HTML',
    async () => {
      const response = await post('/%3Cscript%3Ealert(1)%3C%2Fscript%3E/mcp', JSON.stringify(ping));
      return response.headers.get('content-type')?.includes('html') ?? false;
    },
    false,
  ],
]);

attacks('messages', [
  [
    '__proto__ in a message',
    'nothing inherits from it',
    async () => {
      await inSession(
        '{"jsonrpc":"2.0","id":1,"method":"ping","__proto__":{"polluted":true},"params":{"__proto__":{"polluted":true}}}',
      );
      return ({} as { polluted?: boolean }).polluted;
    },
    undefined,
  ],
  [
    'a method given twice',
    'the last one alone passes, and is what was checked',
    async () => {
      const before = t.edge.origin.arrived.length;
      const answer = await inSession(
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read"},"params":{"name":"delete_all"}}',
      );
      return [
        await code(answer),
        t.edge.origin.arrived.slice(before).some(({ message }) => JSON.stringify(message).includes('delete_all')),
      ];
    },
    ['forbidden', false],
  ],
  ['100,000 levels', 'bounded', () => status(inSession('['.repeat(100_000))), 400],
  [
    '17 MB',
    'bounded',
    () => status(inSession(`{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"${'a'.repeat(17 << 20)}"}}`)),
    413,
  ],
  ['bytes that are no text', 'UTF-8 or nothing', () => status(inSession(Buffer.from([0x7b, 0xff, 0xfe, 0x7d]))), 400],
  [
    'an id that is an object',
    'ids are strings and numbers',
    () => status(inSession('{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}')),
    400,
  ],
  [
    'a batch in a revision without',
    'refused or answered one by one',
    async () => {
      const response = await inSession(JSON.stringify(Array.from({ length: 5_000 }, () => ping)), {
        'mcp-protocol-version': '2025-11-25',
      });
      return response.status >= 400;
    },
    true,
  ],
  [
    'a header that says another method than the body',
    'both must agree (2026-07-28)',
    () =>
      both(
        post('/notes/mcp', modern('tools/call', { name: 'read' }), {
          'mcp-protocol-version': '2026-07-28',
          'mcp-method': 'tools/list',
          'mcp-name': 'read',
        }),
      ),
    [400, 'header_mismatch'],
  ],
]);

const callTool = async (name: string) =>
  code(inSession(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name } })));

attacks('policy and limits', [
  ['a denied tool', 'deny wins', () => callTool('delete_page'), 'forbidden'],
  [
    '… in the stateless era',
    'one policy for both',
    async () =>
      code(
        post('/notes/mcp', modern('tools/call', { name: 'delete_page' }), {
          'mcp-protocol-version': '2026-07-28',
          'mcp-method': 'tools/call',
          'mcp-name': 'delete_page',
        }),
      ),
    'forbidden',
  ],
  [
    '… by the address of all servers',
    'the name is led back first',
    async () => {
      const client = new WireClient(() => t.edge.url, '', bearer(t.alice.token));
      await client.initialize();
      const answer = await client.call('tools/call', { name: 'notes__delete_page', arguments: {} });
      return (answer.error as { data?: { code?: string } } | undefined)?.data?.code;
    },
    'forbidden',
  ],
  [
    '… inside a batch',
    'each message is judged',
    async () => {
      const client = t.client('notes', t.alice.token);
      await client.initialize('2025-03-26');
      const batch = JSON.stringify([{ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'delete_page' } }]);
      return (await (await client.post(batch)).text()).includes('forbidden');
    },
    true,
  ],
  ['a name for which a glob runs for ever', 'globs match in linear time', () => callTool('a'.repeat(50_000)), 'none'],
  [
    'using a server up for everybody else',
    'each caller has its share',
    async () => {
      const flood = Array.from({ length: 60 }, () => status(initialize(t.alice.token, 'shared')));
      const served = (await Promise.all(flood)).filter((each) => each === 200).length;
      return [served, await status(initialize(await jwt({ sub: 'carol' }), 'shared'))];
    },
    [20, 200],
  ],
  [
    'a server that does not exist',
    'told as one that may not be used',
    async () => [
      await status(initialize(t.mallory.token, 'bank')),
      await status(initialize(t.mallory.token, 'nowhere')),
    ],
    [403, 403],
  ],
]);

const authorize = (parameters: Record<string, string>) => {
  const url = new URL('/authorize', t.edge.url);
  const challenge = createHash('sha256').update('v'.repeat(43)).digest('base64url');
  const all = {
    response_type: 'code',
    code_challenge: challenge,
    code_challenge_method: 'S256',
    state: 's',
    ...parameters,
  };
  for (const [name, value] of Object.entries(all)) url.searchParams.set(name, value);
  return fetch(url, { redirect: 'manual' });
};

attacks('logging in', [
  [
    'an open redirect',
    'redirects are registered',
    async () => {
      const answer = await authorize({ client_id: 'nobody', redirect_uri: 'https://evil.example/' });
      return [answer.status, answer.headers.get('location'), answer.headers.get('refresh')];
    },
    [400, null, null],
  ],
  [
    'a client document on this host (SSRF)',
    'public addresses only',
    async () => status(authorize({ client_id: 'https://127.0.0.1/client.json', redirect_uri: 'https://127.0.0.1/cb' })),
    400,
  ],
  [
    "… on a cloud's metadata service",
    'public addresses only',
    async () =>
      status(authorize({ client_id: 'https://169.254.169.254/latest', redirect_uri: 'https://a.example/cb' })),
    400,
  ],
  [
    'javascript: as a redirect',
    'not a scheme that can be registered',
    async () =>
      status(
        post(
          '/register',
          JSON.stringify({ redirect_uris: ['javascript:alert(1)'], token_endpoint_auth_method: 'none' }),
          { authorization: '' },
        ),
      ),
    400,
  ],
  [
    'framing the page',
    'frame-ancestors',
    async () => {
      const answer = await authorize({ client_id: 'nobody', redirect_uri: 'https://a.example/' });
      return answer.headers.get('content-security-policy')?.includes("frame-ancestors 'none'");
    },
    true,
  ],
  [
    'guessing one-time codes',
    'codes have 58 bits; guesses lock nobody out who has a good one',
    async () => {
      const redirect_uri = 'http://127.0.0.1/cb';
      const metadata = { redirect_uris: [redirect_uri], token_endpoint_auth_method: 'none' };
      const registered = await post('/register', JSON.stringify(metadata), { authorization: '' });
      const { client_id } = (await registered.json()) as { client_id: string };
      const good = ((await (await t.admin('POST', '/logins/codes', {})).json()) as { code: string }).code;
      const asked = await authorize({ client_id, redirect_uri });
      let page = asked;
      const decide = async (code: string) => {
        const handle = /name="handle" value="([^"]+)"/.exec(await page.text())?.[1] ?? '';
        const cookie = page.headers
          .getSetCookie()
          .map((each) => each.split(';')[0])
          .join('; ');
        const body = new URLSearchParams({ handle, decision: 'allow', code });
        page = await fetch(asked.url, { method: 'POST', headers: { cookie, origin: t.edge.url }, body });
        return page.headers.get('refresh')?.includes('code=') ?? false;
      };
      const guesses: boolean[] = [];
      for (let guess = 0; guess < 20; guess++) guesses.push(await decide(`WRNG-2222-${2000 + guess}`));
      return [guesses.some(Boolean), await decide(good), await decide(good)];
    },
    [false, true, false],
  ],
]);

test('the table has 60 rows or more', () => {
  expect(rows).toBeGreaterThanOrEqual(60);
});
