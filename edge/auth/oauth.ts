/** Owns the kind `oauth`: access tokens of the authorization server that is built in. */
import { MoorageError } from '../../shared/errors.ts';
import type { Method } from './method.ts';

/** The library's form: whose, which login's, and the secret. */
const TOKEN = /^([^:\s]+):([^:\s]+):[^:\s]+$/;

export const oauth: Method = async ({ auth, bearer, base, resource, validateLogin }) => {
  const [, user, grant] = (auth.oauth && bearer !== null && TOKEN.exec(bearer)) || [];
  if (bearer === null || user === undefined || grant === undefined) return null;
  const found = await validateLogin(`${base}${resource.path}`, bearer);
  if (!found) {
    throw new MoorageError('authentication_required', 'This login is not for this URL, has expired, or was ended.');
  }
  const { holder, scopes, access } = found;
  return { ...holder, scopes, credential: { kind: 'oauth', id: `${user}:${grant}`, access } };
};
