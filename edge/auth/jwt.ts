/** Owns the kind `jwt`: access tokens of OIDC issuers that the owner named. */
import { decodeJwt, type JWTPayload } from 'jose';
import type { JwtIssuer } from '../../shared/config/auth.ts';
import { MoorageError } from '../../shared/errors.ts';
import { isScope } from '../../shared/scopes.ts';
import type { Attempt, Method } from './method.ts';
import { verifyJwt } from './verify.ts';

/** A `sub` has at most 255 ASCII characters (OpenID Connect Core 1.0, section 2). */
const SUBJECT = /^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$/;
export const MAX_GROUPS = 200;
const MAX_GROUP = 256;

export const jwt: Method = async (attempt) => {
  const { auth, bearer, fetchText, now } = attempt;
  // Who is said to have signed it decides whose keys are asked; nothing else is believed before they have answered.
  const claimed = bearer === null ? undefined : issuerOf(bearer);
  const issuer = auth.jwt.find((known) => known.issuer === claimed);
  if (bearer === null || !issuer) return null;
  const audience = audiencesOf(attempt, issuer);
  const { claims, expiresAt } = await verifyJwt(bearer, { ...issuer, audience }, fetchText, now);
  const { sub = '', jti } = claims;
  const name = [claims.preferred_username, claims.email, claims.name].find((text) => typeof text === 'string');
  return {
    subject: subjectOf(issuer.issuer, sub),
    issuer: issuer.issuer,
    ...(typeof name === 'string' ? { name: name.slice(0, 256) } : {}),
    groups: groupsOf(claims, issuer.groupsClaim),
    scopes: [...new Set([...issuer.scopes, ...scopesOf(claims)])],
    claims,
    credential: {
      kind: 'jwt',
      id: typeof jti === 'string' ? jti.slice(0, 256) : await digestOf(bearer),
      expiresAt,
    },
  };
};

/** @throws MoorageError `authentication_required` for a `sub` that could be taken for another, or is none. */
export function subjectOf(issuer: string, sub: string): string {
  if (SUBJECT.test(sub)) return `${issuer}|${sub}`;
  throw new MoorageError('authentication_required', 'The token names nobody: "sub" must be 1 to 255 ASCII characters.');
}

/**
 * What a token may be meant for (RFC 8707): this very resource, the whole edge, or what the owner's issuer calls it. A token
 * for another server of the same edge is none of these.
 */
function audiencesOf({ base, resource }: Attempt, { audience }: JwtIssuer): readonly string[] {
  return [`${base}${resource.path}`, base, `${base}/`, ...audience];
}

/** RFC 8693, section 4.2 (`scope`), and what Microsoft and Okta send (`scp`). */
function scopesOf({ scope, scp }: JWTPayload): string[] {
  const texts = [scope, ...(Array.isArray(scp) ? scp : [scp])];
  return texts.flatMap((text) => (typeof text === 'string' ? text.split(' ') : [])).filter(isScope);
}

/** The claim of this name, or where its dots lead (`realm_access.roles`). */
export function groupsOf(claims: JWTPayload, name: string): string[] {
  const step = (node: unknown, key: string): unknown =>
    typeof node === 'object' && node !== null && Object.hasOwn(node, key)
      ? (node as Record<string, unknown>)[key]
      : undefined;
  const found = step(claims, name) ?? name.split('.').reduce(step, claims as unknown);
  const list = Array.isArray(found) ? found : [found];
  return list
    .filter((group): group is string => typeof group === 'string' && group !== '' && group.length <= MAX_GROUP)
    .slice(0, MAX_GROUPS);
}

function issuerOf(token: string): string | undefined {
  try {
    return decodeJwt(token).iss;
  } catch {
    // Not a JWT: another kind's.
    return undefined;
  }
}

async function digestOf(token: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token));
  return [...new Uint8Array(digest).subarray(0, 12)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
