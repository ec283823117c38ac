/**
 * Owns who is calling, and whether the credential is for what is asked: one request in, a principal or a refusal out. Kinds of
 * credentials are asked one after the other; the first that knows the credential decides.
 *
 * Invariants: a credential that is recognized and not good is refused, whatever else the request could show; a credential in
 * a query string is refused before it is looked at (it would be in logs and histories).
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Principal } from '../../shared/principal.ts';
import { access } from './access.ts';
import { insufficient, unauthenticated } from './challenge.ts';
import { jwt } from './jwt.ts';
import { loopback } from './loopback.ts';
import type { Attempt, Method } from './method.ts';
import { mtls } from './mtls.ts';
import { oauth } from './oauth.ts';
import { owner } from './owner.ts';
import { authOf, baseOf } from './settings.ts';
import { token } from './token.ts';

const METHODS: readonly Method[] = [owner, token, oauth, jwt, access, mtls, loopback];

/** A request, and what is needed to judge it. */
export interface Asking
  extends Pick<Attempt, 'settings' | 'resource' | 'tokens' | 'validateLogin' | 'fetchText' | 'certificate'> {
  readonly request: Request;
}

/** Longer ones are no credentials of any issuer: they would only cost time. */
const MAX_BEARER = 8192;

/** Who may use `resource`. @throws MoorageError `authentication_required`, `insufficient_scope`, `invalid_request`. */
export async function identify(asking: Asking): Promise<Principal> {
  const attempt = attemptOf(asking);
  refuseInQuery(attempt.url);
  for (const method of METHODS) {
    const principal = await believed(method, attempt);
    if (!principal) continue;
    if (!attempt.resource.opens(principal.scopes)) throw insufficient(attempt, principal);
    return principal;
  }
  if (attempt.bearer !== null) throw unauthenticated(attempt, 'Nobody here knows this token.', 'invalid_token');
  throw unauthenticated(attempt, missing(attempt));
}

/** A method that refuses says why; how to do better is the same for all. */
async function believed(method: Method, attempt: Attempt): Promise<Principal | null> {
  try {
    return await method(attempt);
  } catch (thrown) {
    if (thrown instanceof MoorageError && thrown.code === 'authentication_required') {
      throw unauthenticated(attempt, thrown.message, 'invalid_token');
    }
    throw thrown;
  }
}

function attemptOf({ request, ...asking }: Asking): Attempt {
  const url = new URL(request.url);
  const { headers } = request;
  const [, bearer = null] = /^Bearer +([\x21-\x7e]+) *$/i.exec(headers.get('authorization') ?? '') ?? [];
  if (bearer !== null && bearer.length > MAX_BEARER) {
    throw new MoorageError('authentication_required', `A token may have ${MAX_BEARER} characters.`);
  }
  const { settings } = asking;
  return { ...asking, auth: authOf(settings), url, headers, bearer, base: baseOf(settings, url), now: Date.now() };
}

function refuseInQuery({ searchParams }: URL): void {
  if (!searchParams.has('access_token')) return;
  throw new MoorageError(
    'invalid_request',
    'Tokens in URLs end up in logs: send it as "Authorization: Bearer …". Treat this one as leaked and replace it.',
  );
}

function missing({ auth, settings }: Attempt): string {
  if (auth.loopback) {
    return 'Without a credential this edge answers only on localhost, 127.0.0.1 and [::1], to callers of the same host.';
  }
  return settings.MOORAGE_AUTH
    ? 'Say who you are: this edge lets nobody in without a credential.'
    : 'This edge has no way to authenticate callers and therefore lets nobody in. Set MOORAGE_AUTH.';
}
