/** An OIDC issuer in this process, on loopback: its discovery document, its keys, and whatever tokens a test wants of it. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from 'jose';

interface Signer {
  readonly kid: string;
  readonly key: CryptoKey;
  readonly jwk: JWK;
}

export class OidcIssuer {
  readonly url: string;
  /** Times that its keys were asked for. */
  asked = 0;
  #signers: Signer[] = [];
  readonly #codes = new Map<string, { challenge: string; nonce: string; claims: JWTPayload }>();
  readonly #alg: string;
  readonly #close: () => void;

  private constructor(url: string, alg: string, close: () => void) {
    this.url = url;
    this.#alg = alg;
    this.#close = close;
  }

  static async start(alg = 'ES256'): Promise<OidcIssuer> {
    const holder: { issuer?: OidcIssuer } = {};
    const server = createServer((request, response) => {
      if (request.method === 'POST' && request.url === '/token') {
        void holder.issuer?.exchange(request, response);
        return;
      }
      const found = holder.issuer?.document(request.url ?? '');
      response.writeHead(found === undefined ? 404 : 200, { 'content-type': 'application/json' }).end(found);
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const issuer = new OidcIssuer(url, alg, () => server.close());
    holder.issuer = issuer;
    await issuer.rotate();
    return issuer;
  }

  /** What stands at a path; undefined when nothing does. */
  document(path: string): string | undefined {
    if (path === '/.well-known/openid-configuration') {
      const endpoints = { authorization_endpoint: `${this.url}/authorize`, token_endpoint: `${this.url}/token` };
      return JSON.stringify({ issuer: this.url, jwks_uri: `${this.url}/keys`, ...endpoints });
    }
    if (path !== '/keys') return undefined;
    this.asked++;
    return JSON.stringify({ keys: this.#signers.map(({ jwk }) => jwk) });
  }

  /**
   * Lets somebody log in: what the browser brings back from `at`, the address to which the edge sent it. `claims` are
   * those of the ID token that the edge will get for the code.
   */
  login(at: string, claims: JWTPayload): { code: string; state: string; redirect: string } {
    const asked = new URL(at).searchParams;
    const code = crypto.randomUUID();
    this.#codes.set(code, { challenge: asked.get('code_challenge') ?? '', nonce: asked.get('nonce') ?? '', claims });
    return { code, state: asked.get('state') ?? '', redirect: asked.get('redirect_uri') ?? '' };
  }

  /** The token endpoint (RFC 6749, section 4.1.3), which checks PKCE (RFC 7636, section 4.6). */
  async exchange(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const form = new URLSearchParams(await text(request));
    const login = this.#codes.get(form.get('code') ?? '');
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url');
    if (!login || login.challenge !== challenge) {
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}');
      return;
    }
    this.#codes.delete(form.get('code') ?? '');
    const aud = form.get('client_id') ?? '';
    const idToken = await this.token({ aud, nonce: login.nonce, ...login.claims });
    response
      .writeHead(200, { 'content-type': 'application/json' })
      .end(JSON.stringify({ access_token: 'of-the-upstream', token_type: 'Bearer', id_token: idToken }));
  }

  /** Signs with a new key from now on; the old one is not published any more. */
  async rotate(): Promise<void> {
    this.#signers = [await signer(`key-${crypto.randomUUID()}`, this.#alg)];
  }

  /** A token of this issuer that is good for five minutes, unless `claims` (undefined: left out) or `header` say otherwise. */
  async token(claims: JWTPayload, header: Record<string, unknown> = {}, by?: CryptoKey): Promise<string> {
    const [first] = this.#signers;
    if (!first) throw new Error('this issuer has no key');
    const now = Math.floor(Date.now() / 1000);
    const payload = { iss: this.url, sub: 'ada', iat: now, exp: now + 300, ...claims };
    return await new SignJWT(payload)
      .setProtectedHeader({ alg: this.#alg, kid: first.kid, ...header })
      .sign(by ?? first.key);
  }

  close(): void {
    this.#close();
  }
}

async function signer(kid: string, alg: string): Promise<Signer> {
  const { publicKey, privateKey } = await generateKeyPair(alg);
  return { kid, key: privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: 'sig' } };
}
