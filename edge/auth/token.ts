/** Owns the kind `token`: opaque bearer tokens that `moorage token create` makes. */
import { MoorageError } from '../../shared/errors.ts';
import { TOKEN_PREFIX } from '../../shared/tokens.ts';
import type { Method } from './method.ts';
import { tokenDigest, tokenId } from './tokens/format.ts';

export const token: Method = async ({ auth, bearer, tokens }) => {
  if (!auth.tokens || !bearer?.startsWith(TOKEN_PREFIX)) return null;
  const id = tokenId(bearer);
  // One answer for what is mistyped, unknown, revoked and expired: it tells a stranger nothing.
  const found = id === null ? null : await tokens.find(id, (await tokenDigest(bearer)).buffer);
  if (!found) {
    throw new MoorageError('authentication_required', 'This token is not known here, was revoked or has expired.');
  }
  return {
    subject: `token|${found.subject}`,
    issuer: 'token',
    name: found.name,
    groups: found.groups,
    scopes: found.scopes,
    credential: { kind: 'token', id: found.id, ...(found.expiresAt === null ? {} : { expiresAt: found.expiresAt }) },
  };
};
