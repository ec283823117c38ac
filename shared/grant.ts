/**
 * Owns the signed statements with which the halves trust each other (JWS with Ed25519, RFC 8037).
 *
 * - A *grant* is the edge's word to one origin: this principal may use this server's machine in this session, for minutes.
 * - A *statement about keys* is the edge's word to one origin: these keys are mine.
 * - A *link token* is an origin's word to the edge when it dials the link: "I am origin X", for one minute.
 *
 * Keys are JWKs (RFC 7517) pinned on both sides. A verifier names the only algorithm it takes, so `alg: none` and
 * key confusion cannot happen (RFC 8725, section 3.1).
 */
import { type CryptoKey, errors, importJWK, type JWK, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import { type PublicKey, publicKey } from './enrolment.ts';
import { MoorageError } from './errors.ts';

export const ALGORITHM = 'EdDSA';
/** The issuer of what an edge signs, and the audience of what is for it. */
export const EDGE = 'moorage-edge';
/** Clocks of the two machines may differ by this much, in seconds. */
export const CLOCK_TOLERANCE_S = 60;
/** A grant's life, in seconds. */
export const GRANT_LIFE_S = 300;
const LINK_TOKEN_LIFE_S = 60;

export interface Grant {
  /** Origin id: the audience. */
  readonly origin: string;
  /** Who calls. */
  readonly principal: string;
  readonly server: string;
  /** Machine key: what the isolation of the server makes of principal and session. */
  readonly machine: string;
  readonly session: string;
}

const claims = z.object({
  aud: z.string(),
  sub: z.string().min(1),
  server: z.string().min(1),
  machine: z.string().min(1),
  session: z.string().min(1),
});

/** A JWK, as JSON text or object, made usable. @throws TypeError when it is not an Ed25519 key. */
export async function importKey(jwk: JWK | string): Promise<CryptoKey> {
  const key = await importJWK(typeof jwk === 'string' ? (JSON.parse(jwk) as JWK) : jwk, ALGORITHM);
  if (key instanceof Uint8Array) throw new TypeError('A symmetric key cannot sign for Moorage: use an Ed25519 JWK.');
  return key;
}

/**
 * The edge's public keys that an origin trusts, newest first: two of them while the edge changes its key. What neither
 * signed is refused.
 */
export type EdgeKeys = readonly [CryptoKey, ...CryptoKey[]];

/** Signs a grant. `now` is in milliseconds. The compact JWS is good for `GRANT_LIFE_S`. */
export async function signGrant(key: CryptoKey, grant: Grant, now: number): Promise<string> {
  const { server, machine, session } = grant;
  const seconds = Math.floor(now / 1000);
  return await new SignJWT({ server, machine, session })
    .setProtectedHeader({ alg: ALGORITHM, typ: 'moorage-grant+jwt' })
    .setIssuer(EDGE)
    .setAudience(grant.origin)
    .setSubject(grant.principal)
    .setIssuedAt(seconds)
    .setNotBefore(seconds)
    .setExpirationTime(seconds + GRANT_LIFE_S)
    .sign(key);
}

/** Verifies a grant for `origin`. @throws MoorageError `grant_invalid`, without saying more than which check failed. */
export async function verifyGrant(keys: EdgeKeys, token: string, origin: string, now: number): Promise<Grant> {
  const payload = await verifyByEdge(keys, token, { audience: origin, typ: 'moorage-grant+jwt', now });
  const parsed = claims.safeParse(payload);
  if (!parsed.success) throw new MoorageError('grant_invalid', 'The grant lacks a claim.');
  const { aud, sub, server, machine, session } = parsed.data;
  return { origin: aud, principal: sub, server, machine, session };
}

/** The claims of what one of the edge's keys signed. @throws MoorageError `grant_invalid`. */
export async function verifyByEdge(
  keys: EdgeKeys,
  token: string,
  expected: { audience: string; typ: string; now: number },
): Promise<unknown> {
  const [newest, ...older] = keys;
  try {
    return await verify(newest, token, { ...expected, issuer: EDGE });
  } catch (refusal) {
    for (const key of older) {
      const claims = await verify(key, token, { ...expected, issuer: EDGE }).catch(() => undefined);
      if (claims !== undefined) return claims;
    }
    throw refusal;
  }
}

const keysClaims = z.object({ keys: z.array(publicKey).min(1).max(2) });

/** Signs the edge's word to an origin about its keys: those to believe from now on, the signing one first. */
export async function signKeys(
  key: CryptoKey,
  keys: readonly PublicKey[],
  origin: string,
  now: number,
): Promise<string> {
  const seconds = Math.floor(now / 1000);
  return await new SignJWT({ keys })
    .setProtectedHeader({ alg: ALGORITHM, typ: 'moorage-keys+jwt' })
    .setIssuer(EDGE)
    .setAudience(origin)
    .setIssuedAt(seconds)
    .setNotBefore(seconds)
    .setExpirationTime(seconds + GRANT_LIFE_S)
    .sign(key);
}

/** The keys that the edge names. @throws MoorageError `grant_invalid`. */
export async function verifyKeys(keys: EdgeKeys, token: string, origin: string, now: number): Promise<PublicKey[]> {
  const parsed = keysClaims.safeParse(
    await verifyByEdge(keys, token, { audience: origin, typ: 'moorage-keys+jwt', now }),
  );
  if (!parsed.success) throw new MoorageError('grant_invalid', 'The statement about keys lacks a claim.');
  return parsed.data.keys;
}

/** Signs the token with which origin `id` opens its link. */
export async function signLinkToken(key: CryptoKey, id: string, now: number): Promise<string> {
  const seconds = Math.floor(now / 1000);
  return await new SignJWT({})
    .setProtectedHeader({ alg: ALGORITHM, typ: 'moorage-link+jwt' })
    .setIssuer(id)
    .setAudience(EDGE)
    .setIssuedAt(seconds)
    .setNotBefore(seconds)
    .setExpirationTime(seconds + LINK_TOKEN_LIFE_S)
    .sign(key);
}

/** Verifies that a link token was signed by origin `id`'s key. @throws MoorageError `grant_invalid`. */
export async function verifyLinkToken(key: CryptoKey, token: string, id: string, now: number): Promise<void> {
  await verify(key, token, { issuer: id, audience: EDGE, typ: 'moorage-link+jwt', now });
}

async function verify(
  key: CryptoKey,
  token: string,
  expected: { issuer: string; audience: string; typ: string; now: number },
): Promise<unknown> {
  try {
    const { payload } = await jwtVerify(token, key, {
      algorithms: [ALGORITHM],
      issuer: expected.issuer,
      audience: expected.audience,
      typ: expected.typ,
      clockTolerance: CLOCK_TOLERANCE_S,
      currentDate: new Date(expected.now),
      requiredClaims: ['exp', 'nbf'],
    });
    return payload;
  } catch (error) {
    if (error instanceof errors.JOSEError)
      throw new MoorageError('grant_invalid', `The token was refused (${error.code}).`);
    throw error;
  }
}
