/** Owns the kind `owner`: who holds the owner's private key. On wherever the edge knows the public one. */
import { type CryptoKey, decodeProtectedHeader } from 'jose';
import { MoorageError } from '../../shared/errors.ts';
import { importKey } from '../../shared/grant.ts';
import { OWNER_TYPE, verifyOwnerToken } from '../../shared/owner.ts';
import { ADMIN_SCOPE, MCP_SCOPE } from '../../shared/scopes.ts';
import type { Method } from './method.ts';

export const owner: Method = async ({ settings, bearer, base, url, now }) => {
  if (bearer === null || typeOf(bearer) !== OWNER_TYPE) return null;
  if (!settings.MOORAGE_OWNER_KEY) return null;
  const key = await ownerKeyOf(settings.MOORAGE_OWNER_KEY);
  const { id, expiresAt } = await verifyOwnerToken(key, bearer, [base, url.origin], now);
  return {
    subject: 'owner',
    issuer: 'owner',
    groups: [],
    scopes: [ADMIN_SCOPE, MCP_SCOPE],
    credential: { kind: 'owner', id, expiresAt },
  };
};

/** By the text: it never changes within an isolate, but in tests. */
const imported = new Map<string, Promise<CryptoKey>>();

function ownerKeyOf(text: string): Promise<CryptoKey> {
  const known = imported.get(text);
  if (known) return known;
  const key = importKey(text).catch(() => {
    throw new MoorageError('internal', 'MOORAGE_OWNER_KEY of this edge is not an Ed25519 JWK.');
  });
  imported.set(text, key);
  return key;
}

function typeOf(token: string): string | undefined {
  try {
    return decodeProtectedHeader(token).typ;
  } catch {
    // Not a JWS: another kind's.
    return undefined;
  }
}
