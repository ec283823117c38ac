/**
 * Owns the proof that goes with each request of the edge to an origin: that the edge itself sends it, now, unchanged.
 *
 * A grant alone is a bearer token: whoever reads the traffic on the tunnel's far end could use it for five minutes. So a
 * request also carries a JWS of the edge over what it asks (after DPoP, RFC 9449: `htm`, `htu`, `ath`, `jti`), with digests
 * of its body and of those headers that change what it means. A proof is good once, for a minute.
 */
import { base64url, type CryptoKey, SignJWT } from 'jose';
import { z } from 'zod';
import { MoorageError } from './errors.ts';
import { ALGORITHM, EDGE, type EdgeKeys, verifyByEdge } from './grant.ts';
import { PARAM_HEADER_PREFIX } from './mirrored-headers.ts';

/** The header in which it travels. */
export const PROOF_HEADER = 'moorage-proof';
const TYPE = 'moorage-request+jwt';
/** A proof's life, in seconds. */
export const PROOF_LIFE_S = 60;

/** What a request asks, as both halves see it. */
export interface Asked {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: Iterable<readonly [string, string]>;
  readonly grant: string;
  readonly body: Uint8Array | null;
}

/** A proof that was verified, but for the request's body, which is read later. */
export interface Proof {
  /** Unique: refuse it the second time. */
  readonly id: string;
  /** When the edge made it and until when it is good, in milliseconds by the edge's clock. */
  readonly madeAt: number;
  readonly goodUntil: number;
  /** Whether this is the body that was meant. */
  covers(body: Uint8Array | null): Promise<boolean>;
}

const claims = z.object({
  jti: z.string().min(16).max(64),
  iat: z.number(),
  exp: z.number(),
  htm: z.string(),
  htu: z.string(),
  ath: z.string(),
  bod: z.string(),
  hds: z.string(),
});

/** Signs the proof of one request to `origin`. `id` is fresh and random; `now` in milliseconds. */
export async function signProof(
  key: CryptoKey,
  origin: string,
  { method, path, headers, grant, body }: Asked,
  id: string,
  now: number,
): Promise<string> {
  const [ath, bod, hds] = await Promise.all([digest(grant), digest(body ?? ''), digest(meaning(headers))]);
  return await new SignJWT({ htm: method, htu: path, ath, bod, hds })
    .setProtectedHeader({ alg: ALGORITHM, typ: TYPE })
    .setIssuer(EDGE)
    .setAudience(origin)
    .setJti(id)
    .setIssuedAt(now / 1000)
    .setNotBefore(now / 1000)
    .setExpirationTime(now / 1000 + PROOF_LIFE_S)
    .sign(key);
}

/** Verifies a proof against what arrived. @throws MoorageError `grant_invalid`, without saying which part differs. */
export async function verifyProof(
  keys: EdgeKeys,
  token: string,
  origin: string,
  asked: Omit<Asked, 'body'>,
  now: number,
): Promise<Proof> {
  const parsed = claims.safeParse(await verifyByEdge(keys, token, { audience: origin, typ: TYPE, now }));
  const [ath, hds] = await Promise.all([digest(asked.grant), digest(meaning(asked.headers))]);
  const said = parsed.data;
  if (said?.htm !== asked.method || said.htu !== asked.path || said.ath !== ath || said.hds !== hds) {
    throw new MoorageError('grant_invalid', 'The proof is of another request.');
  }
  return {
    id: said.jti,
    madeAt: said.iat * 1000,
    goodUntil: said.exp * 1000,
    covers: async (body) => said.bod === (await digest(body ?? '')),
  };
}

/** Headers of ours and of tools' parameters, in a form that no proxy on the way changes. */
function meaning(headers: Iterable<readonly [string, string]>): string {
  return [...headers]
    .map(([name, value]) => [name.toLowerCase(), value.trim()] as const)
    .filter(([name]) => (name.startsWith('moorage-') && name !== PROOF_HEADER) || name.startsWith(PARAM_HEADER_PREFIX))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}: ${value}\n`)
    .join('');
}

async function digest(data: string | Uint8Array): Promise<string> {
  const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data;
  // Neither half shares memory between threads: what the wider type of views allows for does not occur.
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
  return base64url.encode(sum);
}
