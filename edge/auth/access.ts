/** Owns the kind `access`: Cloudflare Access in front of the edge, which vouches for each request in a header. */
import { groupsOf, subjectOf } from './jwt.ts';
import type { Method } from './method.ts';
import { verifyJwt } from './verify.ts';

const HEADER = 'cf-access-jwt-assertion';

export const access: Method = async ({ auth, headers, fetchText, now }) => {
  const assertion = headers.get(HEADER);
  if (!auth.access || assertion === null) return null;
  const { team, audience, scopes } = auth.access;
  const issuer = `https://${team}.cloudflareaccess.com`;
  const expected = { issuer, jwks: `${issuer}/cdn-cgi/access/certs`, audience: [audience], algorithms: ['RS256'] };
  const { claims, expiresAt } = await verifyJwt(assertion, expected, fetchText, now);
  const { sub, email, common_name: service } = claims;
  // A service token is no person: it has a name in the place of a subject.
  const subject = sub || (typeof service === 'string' ? `service:${service}` : '');
  return {
    subject: subjectOf(issuer, subject),
    issuer,
    ...(typeof email === 'string' ? { name: email.slice(0, 256) } : {}),
    groups: groupsOf(claims, 'groups'),
    scopes,
    claims,
    credential: { kind: 'access', id: subject, expiresAt },
  };
};
