/** Owns what an access token of the built-in authorization server says to the resource server beside it. */
import { z } from 'zod';
import type { Env } from '../../env.ts';
import type { Login } from '../method.ts';
import { authOf, baseOf } from '../settings.ts';
import { authorizationServer } from './server.ts';

const holder = z.object({
  subject: z.string(),
  issuer: z.string(),
  name: z.string().optional(),
  groups: z.array(z.string()),
});

/** The login behind a token, if it is good for this resource: it was asked for with it (RFC 8707), or with all servers. */
export async function validateLogin(env: Env, url: URL, resource: string, token: string): Promise<Login | null> {
  const { oauth } = authOf(env);
  if (!oauth) return null;
  const base = baseOf(env, url);
  const server = authorizationServer(env, oauth, base, { resources: [resource], scopes: [] });
  const found = (await server.validate(resource, token)) ?? (await server.validate(`${base}/mcp`, token));
  if (!found) return null;
  const { name, ...person } = holder.parse(found.props);
  return {
    holder: { ...person, ...(name === undefined ? {} : { name }) },
    scopes: found.scope,
    access: { id: await tokenIdOf(token), expiresAt: found.expiresAt * 1000 },
  };
}

/** What the library keeps an access token by: its SHA-256, hexadecimal. */
async function tokenIdOf(token: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
