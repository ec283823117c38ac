/** Owns the door of the Worker: `identify` with what this edge knows. */
import type { Principal } from '../../shared/principal.ts';
import type { Env } from '../env.ts';
import { fetchPublic } from './fetch-public.ts';
import { identify } from './identify.ts';
import { validateLogin } from './oauth/login.ts';
import type { Resource } from './resource.ts';
import { tokensOf } from './tokens/object.ts';

/** Who may use `resource`. @throws MoorageError `authentication_required`, `insufficient_scope`, `invalid_request`. */
export async function authenticate(request: Request, env: Env, resource: Resource): Promise<Principal> {
  return await identify({
    request,
    settings: env,
    resource,
    tokens: tokensOf(env),
    validateLogin: (url, token) => validateLogin(env, new URL(request.url), url, token),
    fetchText: (url, local) => fetchPublic(url, local ? { loopback: env.LOOPBACK } : {}),
    certificate: request.cf?.tlsClientAuth,
  });
}
