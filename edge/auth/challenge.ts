/**
 * Owns the refusals of a resource server (RFC 6750, section 3; RFC 9728, section 5.1; MCP basic/authorization) as errors
 * whose data `respond.ts` writes into `WWW-Authenticate`.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Principal } from '../../shared/principal.ts';
import { requestedScopes } from './metadata.ts';
import type { Attempt } from './method.ts';
import type { Resource } from './resource.ts';

/** Path under which the metadata of a resource is found (RFC 9728, section 3.1). */
export const METADATA_PATH = '/.well-known/oauth-protected-resource';

/** Who asks must say who it is. `error`: it did, and was not believed. */
export function unauthenticated(attempt: Attempt, message: string, error?: 'invalid_token'): MoorageError {
  const scope = requestedScopes(attempt.auth, attempt.resource).join(' ');
  return new MoorageError('authentication_required', message, {
    ...(error === undefined ? {} : { error }),
    resource_metadata: metadataUrl(attempt),
    ...(scope === '' ? {} : { scope }),
  });
}

/** The credential is good, and not for this. Names what it has too, so that asking again loses nothing. */
export function insufficient(attempt: Attempt, { scopes }: Principal): MoorageError {
  const wanted = [...new Set([...scopes, ...requestedScopes(attempt.auth, attempt.resource)])];
  return new MoorageError(
    'insufficient_scope',
    `This credential is not for this: it needs the scope ${attempt.resource.supported.map((scope) => `"${scope}"`).join(' or ')}.`,
    { error: 'insufficient_scope', resource_metadata: metadataUrl(attempt), scope: wanted.join(' ') },
  );
}

const metadataUrl = ({ base, resource }: { base: string; resource: Resource }): string =>
  `${base}${METADATA_PATH}${resource.path}`;

/** The value of `WWW-Authenticate` for such an error. Values are quoted strings of RFC 9110, section 5.6.4. */
export function wwwAuthenticate(data: Readonly<Record<string, unknown>>): string {
  const parameters = (['error', 'scope', 'resource_metadata'] as const).flatMap((name) => {
    const value = data[name];
    return typeof value === 'string' ? [`${name}="${value.replaceAll(/[^\x20-\x7e]|["\\]/g, '')}"`] : [];
  });
  return ['Bearer', parameters.join(', ')].join(' ').trim();
}
