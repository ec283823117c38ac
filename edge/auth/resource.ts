/** Owns what can be asked for at this edge, and which scopes open it. */
import { ADMIN_SCOPE, coversServer, coversSome, MCP_SCOPE, serverScope } from '../../shared/scopes.ts';

export interface Resource {
  /** Path of its URL: the resource identifier is the base URL and this (RFC 8707; RFC 9728, section 2). */
  readonly path: string;
  /** What to ask for: the least scopes that open it. */
  readonly scopes: readonly string[];
  /** Every scope that opens it. */
  readonly supported: readonly string[];
  readonly opens: (scopes: readonly string[]) => boolean;
}

export const serverResource = (server: string): Resource => ({
  path: `/${server}/mcp`,
  scopes: [serverScope(server)],
  supported: [serverScope(server), MCP_SCOPE],
  opens: (scopes) => coversServer(scopes, server),
});

/** All servers as one: whoever may use any of them comes in, and sees those. */
export const ALL_SERVERS: Resource = {
  path: '/mcp',
  scopes: [MCP_SCOPE],
  supported: [MCP_SCOPE],
  opens: coversSome,
};

export const ADMINISTRATION: Resource = {
  path: '/admin/api',
  scopes: [ADMIN_SCOPE],
  supported: [ADMIN_SCOPE],
  opens: (scopes) => scopes.includes(ADMIN_SCOPE),
};
