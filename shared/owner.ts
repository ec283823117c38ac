/**
 * Owns the owner's token: how the command line shows the edge that it may read the state folder. A JWS with the owner's key,
 * which signs nothing else, good for a minute.
 */
import { type CryptoKey, errors, jwtVerify, SignJWT } from 'jose';
import { MoorageError } from './errors.ts';

const ALGORITHM = 'EdDSA';
const ISSUER = 'moorage-owner';
/** Tells this token from every other before its signature is looked at. */
export const OWNER_TYPE = 'moorage-owner+jwt';
const LIFE_S = 60;
/** It is signed and read on the same host, or on hosts whose clocks differ by this much. */
const CLOCK_TOLERANCE_S = 30;

/**
 * Signs one for the edge at `audience`, an origin such as `https://mcp.example.com`: shown to another, it is worth nothing
 * there. `now` is in milliseconds.
 */
export async function signOwnerToken(key: CryptoKey, audience: string, id: string, now: number): Promise<string> {
  const seconds = Math.floor(now / 1000);
  return await new SignJWT({})
    .setProtectedHeader({ alg: ALGORITHM, typ: OWNER_TYPE })
    .setIssuer(ISSUER)
    .setAudience(audience)
    .setJti(id)
    .setIssuedAt(seconds)
    .setExpirationTime(seconds + LIFE_S)
    .sign(key);
}

/** `audiences` are the edge's own; `expiresAt` is in Unix milliseconds. @throws MoorageError `authentication_required`. */
export async function verifyOwnerToken(
  key: CryptoKey,
  token: string,
  audiences: readonly string[],
  now: number,
): Promise<{ id: string; expiresAt: number }> {
  try {
    const { payload } = await jwtVerify(token, key, {
      algorithms: [ALGORITHM],
      issuer: ISSUER,
      audience: [...audiences],
      typ: OWNER_TYPE,
      clockTolerance: CLOCK_TOLERANCE_S,
      maxTokenAge: LIFE_S,
      currentDate: new Date(now),
      requiredClaims: ['exp', 'iat', 'jti'],
    });
    return { id: payload.jti ?? '', expiresAt: ((payload.exp ?? 0) + CLOCK_TOLERANCE_S) * 1000 };
  } catch (error) {
    if (!(error instanceof errors.JOSEError)) throw error;
    throw new MoorageError('authentication_required', `The owner's token was refused (${error.code}).`);
  }
}
