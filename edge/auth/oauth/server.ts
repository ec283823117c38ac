/**
 * Owns the authorization server itself, made for a request: `@cloudflare/workers-oauth-provider` (PKCE with S256, RFC 8414
 * metadata, RFC 9207 `iss`, RFC 8707 resources, RFC 7009 revocation, RFC 7591 registration, Client ID Metadata Documents),
 * told which of our URLs may be asked for.
 */
import { OAuthAuthorizationServer, type OAuthHelpers } from '@cloudflare/workers-oauth-provider';
import { serverName } from '../../../shared/config/name.ts';
import type { OAuthConfig } from '../../../shared/config/oauth.ts';
import { isScope, MCP_SCOPE } from '../../../shared/scopes.ts';
import type { Env } from '../../env.ts';
import { kvOver } from './kv.ts';
import { oauthStoreOf } from './object.ts';

export const AUTHORIZE_PATH = '/authorize';
export const TOKEN_PATH = '/token';
export const REGISTER_PATH = '/register';
export const CALLBACK_PATH = '/callback';
export const SERVER_METADATA_PATH = '/.well-known/oauth-authorization-server';

/** What the request names as `resource`, if it is one of ours, and the scopes that it names. */
export interface Wish {
  readonly resources: readonly string[];
  readonly scopes: readonly string[];
}

export interface AuthorizationServer {
  /** Serves metadata, tokens, revocation and registration. */
  fetch(request: Request): Promise<Response>;
  readonly helpers: OAuthHelpers;
  /** The token, if it is good for this resource. */
  validate(resource: string, token: string): ReturnType<OAuthAuthorizationServer['validateToken']>;
}

/** `base`: the edge's URL, which is the issuer. */
export function authorizationServer(env: Env, config: OAuthConfig, base: string, wish: Wish): AuthorizationServer {
  const bindings = { OAUTH_KV: kvOver(oauthStoreOf(env)) };
  const options = {
    issuer: base,
    authorizeEndpoint: AUTHORIZE_PATH,
    tokenEndpoint: TOKEN_PATH,
    clientRegistrationEndpoint: REGISTER_PATH,
    resources: [...new Set([`${base}/mcp`, ...wish.resources])],
    defaultResource: `${base}/mcp`,
    scopesSupported: [...new Set([MCP_SCOPE, ...wish.scopes])],
    accessTokenTTL: config.accessTokenLife,
    refreshTokenTTL: config.loginLife,
    refreshTokenIdleTTL: config.loginLife,
    // `cursor://…` and the like; only redirects that the client registered are taken.
    allowPrivateUseRedirectUris: true,
    clientIdMetadataDocumentEnabled: true,
  };
  const server = new OAuthAuthorizationServer<typeof bindings>(options);
  // The library fills a context for handlers of resources, of which this server has none: no more of it is used.
  const context = { waitUntil: () => undefined, passThroughOnException: () => undefined, props: {} };
  return {
    fetch: (request) => server.fetch(request, bindings, context as unknown as ExecutionContext),
    helpers: server.getOAuthApi(bindings),
    validate: (resource, token) => server.validateToken(resource, token, bindings),
  };
}

/** What an authorization or token request wishes for, as far as it is ours to give. */
export function wishOf(parameters: { getAll(name: string): unknown[] }, base: string): Wish {
  const texts = (name: string) => parameters.getAll(name).filter((value) => typeof value === 'string');
  return {
    resources: texts('resource').filter((resource) => isResource(resource, base)),
    scopes: texts('scope')
      .flatMap((scope) => scope.split(' '))
      .filter((scope) => isScope(scope) && scope !== 'admin'),
  };
}

function isResource(resource: string, base: string): boolean {
  if (resource === `${base}/mcp`) return true;
  const [, name] = resource.startsWith(`${base}/`) ? (/^\/([^/]+)\/mcp$/.exec(resource.slice(base.length)) ?? []) : [];
  return name !== undefined && serverName.safeParse(name).success;
}
