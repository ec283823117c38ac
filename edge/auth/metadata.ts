/** Owns what the edge says of itself as a protected resource (RFC 9728), one document for each server and for `/mcp`. */
import type { AuthConfig } from '../../shared/config/auth.ts';
import type { Resource } from './resource.ts';

export interface ResourceMetadata {
  readonly resource: string;
  readonly resource_name: string;
  readonly authorization_servers?: readonly string[];
  readonly scopes_supported: readonly string[];
  readonly bearer_methods_supported: readonly ['header'];
}

/** Scopes that a client is told to ask for. Empty: it need not ask for any. */
export function requestedScopes(auth: AuthConfig, resource: Resource): readonly string[] {
  const [first] = auth.oauth ? [] : auth.jwt;
  if (first?.requestScopes) return first.requestScopes;
  // Every token of this issuer has them, and it may not know how to issue ours.
  return first && resource.opens(first.scopes) ? [] : resource.scopes;
}

/** The document of one resource. `base` has no slash at its end. */
export function metadataOf(auth: AuthConfig, resource: Resource, base: string): ResourceMetadata {
  // Clients take the first: the built-in one serves them all, whatever they can register with.
  const issuers = [...(auth.oauth ? [base] : []), ...auth.jwt.map(({ issuer }) => issuer)];
  const [first] = auth.oauth ? [] : auth.jwt;
  return {
    resource: `${base}${resource.path}`,
    resource_name: `Moorage ${resource.path}`,
    ...(issuers.length > 0 ? { authorization_servers: issuers } : {}),
    scopes_supported: first?.requestScopes ?? resource.supported,
    bearer_methods_supported: ['header'],
  };
}
