/** Owns the checks of a JWT that a third party signed (RFC 8725), whatever carries it. */
import { errors, type JWTPayload, jwtVerify } from 'jose';
import { MoorageError } from '../../shared/errors.ts';
import { type FetchText, keysOf } from './keys.ts';

/** Clocks of an issuer and the edge may differ by this much. */
const CLOCK_TOLERANCE_S = 60;

export interface Expected {
  readonly issuer: string;
  readonly jwks?: string | undefined;
  /** One of these must be among the token's audiences, exactly. */
  readonly audience: readonly string[];
  readonly algorithms: readonly string[];
}

/**
 * The claims of a token that is good, and until when it is taken, in Unix milliseconds: longer than it says, as clocks differ.
 * @throws MoorageError `authentication_required`, `issuer_away`.
 */
export async function verifyJwt(
  token: string,
  expected: Expected,
  fetchText: FetchText,
  now: number,
): Promise<{ claims: JWTPayload; expiresAt: number }> {
  try {
    const { payload } = await jwtVerify(token, await keysOf(expected, fetchText, now), {
      issuer: expected.issuer,
      audience: [...expected.audience],
      algorithms: [...expected.algorithms],
      clockTolerance: CLOCK_TOLERANCE_S,
      currentDate: new Date(now),
      requiredClaims: ['exp'],
    });
    return { claims: payload, expiresAt: ((payload.exp ?? 0) + CLOCK_TOLERANCE_S) * 1000 };
  } catch (error) {
    if (error instanceof errors.JWKSInvalid || error instanceof errors.JWKSTimeout) {
      throw new MoorageError('issuer_away', `The keys of "${expected.issuer}" cannot be had now.`);
    }
    if (!(error instanceof errors.JOSEError)) throw error;
    throw new MoorageError('authentication_required', `The token was refused: ${reasonOf(error)}.`);
  }
}

/** For whoever set up the issuer: which check failed. A claim's name is no secret, its value is not told. */
function reasonOf(error: errors.JOSEError): string {
  if (error instanceof errors.JWTExpired) return 'it has expired';
  if (error instanceof errors.JWTClaimValidationFailed) {
    return error.claim === 'aud' ? 'it is meant for somebody else (aud)' : `its claim "${error.claim}" does not fit`;
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return 'its algorithm is not taken (alg)';
  if (error instanceof errors.JWKSNoMatchingKey) return 'its issuer has no such key (kid)';
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'its signature is wrong';
  return error.code;
}
