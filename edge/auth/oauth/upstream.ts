/**
 * Owns how a user proves who it is to an upstream (OpenID Connect Core 1.0, section 3.1, with PKCE; or GitHub's OAuth 2.0, see
 * `github.ts`): where the browser is sent, and whom the answer names.
 */
import { base64url, decodeJwt } from 'jose';
import { z } from 'zod';
import { isAllowed, type Upstream } from '../../../shared/config/oauth.ts';
import { MoorageError } from '../../../shared/errors.ts';
import { groupsOf, subjectOf } from '../jwt.ts';
import { verifyJwt } from '../verify.ts';
import { githubEndpoints, githubName, githubPerson, githubScope } from './github.ts';
import type { Holder } from './holder.ts';
import { away, jsonAt, notListed, type Reach, refused } from './reach.ts';

/** What must be remembered until the browser is back. */
export interface Pending {
  readonly verifier: string;
  readonly nonce: string;
}

interface Endpoints {
  readonly authorize: string;
  readonly token: string;
}

const discovery = z.looseObject({ authorization_endpoint: z.url(), token_endpoint: z.url() });
const tokens = z.looseObject({ access_token: z.string().optional(), id_token: z.string().optional() });

export const nameOf = (upstream: Upstream): string =>
  upstream.type === 'github' ? githubName(upstream) : (URL.parse(upstream.issuer)?.hostname ?? upstream.issuer);

/** Where the browser goes. `state` comes back with it. */
export async function loginUrl(
  upstream: Upstream,
  { verifier, nonce }: Pending,
  state: string,
  redirect: string,
  reach: Reach,
): Promise<string> {
  const url = new URL((await endpointsOf(upstream, reach)).authorize);
  const scope = upstream.type === 'github' ? githubScope(upstream) : ['openid', ...upstream.scopes].join(' ');
  const asked = {
    response_type: 'code',
    client_id: upstream.clientId,
    redirect_uri: redirect,
    scope,
    state,
    code_challenge: await challengeOf(verifier),
    code_challenge_method: 'S256',
    ...(upstream.type === 'oidc' ? { nonce } : {}),
  };
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
  return url.href;
}

/**
 * Whom the code that the browser brought names.
 * @throws MoorageError `issuer_away`, `authentication_required` (its answer is not good), `forbidden` (not on the list).
 */
export async function personOf(
  upstream: Upstream,
  code: string,
  { verifier, nonce }: Pending,
  redirect: string,
  reach: Reach,
): Promise<Holder> {
  const { token } = await endpointsOf(upstream, reach);
  const body = new URLSearchParams({
    grant_type: 'authorization_code',
    code,
    redirect_uri: redirect,
    client_id: upstream.clientId,
    code_verifier: verifier,
    ...(reach.secret === undefined ? {} : { client_secret: reach.secret }),
  });
  const answer = tokens.safeParse(
    await jsonAt(reach, token, {
      method: 'POST',
      headers: { accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded' },
      body: body.toString(),
    }),
  );
  if (!answer.success) throw refused();
  return upstream.type === 'github'
    ? await githubPerson(upstream, answer.data.access_token, reach)
    : await oidcPerson(upstream, answer.data.id_token, nonce, reach);
}

async function oidcPerson(
  upstream: Extract<Upstream, { type: 'oidc' }>,
  idToken: string | undefined,
  nonce: string,
  { fetchText, now }: Reach,
): Promise<Holder> {
  const { issuer, clientId, groupsClaim, allow } = upstream;
  if (idToken === undefined || !isJws(idToken)) throw refused();
  const expected = { issuer, audience: [clientId], algorithms: ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'] };
  const { claims } = await verifyJwt(idToken, expected, fetchText, now);
  const { sub = '', email, email_verified: verified, preferred_username: username } = claims;
  if (claims.nonce !== nonce) throw refused();
  // An address that its holder may have typed in proves nothing.
  const address = typeof email === 'string' && verified === true ? email : undefined;
  if (!isAllowed(allow, address === undefined ? [sub] : [sub, address])) throw notListed();
  const name = address ?? (typeof username === 'string' ? username : undefined);
  return {
    subject: subjectOf(issuer, sub),
    issuer,
    ...(name === undefined ? {} : { name: name.slice(0, 256) }),
    groups: groupsOf(claims, groupsClaim),
  };
}

async function endpointsOf(upstream: Upstream, { fetchText }: Reach): Promise<Endpoints> {
  if (upstream.type === 'github') return githubEndpoints(upstream);
  const at = `${upstream.issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  let value: unknown;
  try {
    value = JSON.parse(await fetchText(at, true));
  } catch (thrown) {
    if (thrown instanceof MoorageError) throw thrown;
    throw away();
  }
  const document = discovery.safeParse(value);
  if (!document.success) throw away();
  return { authorize: document.data.authorization_endpoint, token: document.data.token_endpoint };
}

/** RFC 7636, section 4.2. */
async function challengeOf(verifier: string): Promise<string> {
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier)));
  return base64url.encode(sum);
}

function isJws(token: string): boolean {
  try {
    decodeJwt(token);
    return true;
  } catch {
    return false;
  }
}
