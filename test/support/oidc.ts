/** An OIDC issuer in this process, on loopback: its discovery document, its keys, and whatever tokens a test wants of it. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
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
      const text = holder.issuer?.document(request.url ?? '');
      response.writeHead(text === undefined ? 404 : 200, { 'content-type': 'application/json' }).end(text);
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
      return JSON.stringify({ issuer: this.url, jwks_uri: `${this.url}/keys` });
    }
    if (path !== '/keys') return undefined;
    this.asked++;
    return JSON.stringify({ keys: this.#signers.map(({ jwk }) => jwk) });
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
