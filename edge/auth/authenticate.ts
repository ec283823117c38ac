/** Owns the door of the Worker: `identify` with what this edge knows, and who is told when a credential ends. */
import type { Credential, Principal } from '../../shared/principal.ts';
import type { Env } from '../env.ts';
import { endingWith, type Watch } from './ending.ts';
import { fetchPublic } from './fetch-public.ts';
import { identify } from './identify.ts';
import { validateLogin } from './oauth/login.ts';
import { watchLogin } from './oauth/object.ts';
import type { Resource } from './resource.ts';
import { tokensOf, watchToken } from './tokens/object.ts';

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

/** Credentials that can be revoked, and how that is watched. */
const WATCHED: Partial<Record<Credential['kind'], (env: Env, credential: Credential) => Promise<Watch | null>>> = {
  token: (env, { id = '' }) => watchToken(env, id),
  oauth: async (env, { id = '', access }) => (access ? await watchLogin(env, id, access) : null),
};

/** The response, whose stream ends with the credential that opened it. */
export function endWithCredential(env: Env, credential: Credential, response: Response): Response {
  const watch = WATCHED[credential.kind];
  const ending = { expiresAt: credential.expiresAt, watch: watch && (() => watch(env, credential)) };
  return endingWith(ending, response);
}
