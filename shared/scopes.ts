/**
 * Owns the scopes of Moorage (scope tokens of RFC 6749, section 3.3): what a credential is good for at all. What its holder
 * may do within that is policy.
 *
 * | Scope | Lets its holder |
 * |---|---|
 * | `mcp` | use every server, and `/mcp` |
 * | `server:<name>` | use this server, and see it at `/mcp` |
 * | `admin` | use the administration (`/admin/api`) and nothing else |
 */

export const MCP_SCOPE = 'mcp';
export const ADMIN_SCOPE = 'admin';
const SERVER_PREFIX = 'server:';
const SCOPE = /^(mcp|admin|server:[A-Za-z0-9][A-Za-z0-9._-]{0,62})$/;

export const serverScope = (server: string): string => `${SERVER_PREFIX}${server}`;

/** Whether a text is one of these scopes. Others may be in a token; they mean nothing here. */
export const isScope = (text: string): boolean => SCOPE.test(text);

/** Whether a holder of these scopes may use a server. */
export const coversServer = (scopes: readonly string[], server: string): boolean =>
  scopes.includes(MCP_SCOPE) || scopes.includes(serverScope(server));

/** Whether a holder of these scopes may use any server, and so `/mcp`. */
export const coversSome = (scopes: readonly string[]): boolean =>
  scopes.some((scope) => scope === MCP_SCOPE || scope.startsWith(SERVER_PREFIX));
