/** Owns the refusals that more than one part of the edge gives, so that a client reads the same words everywhere. Pure. */
import { MoorageError } from '../../shared/errors.ts';

export function unknownServer(server: string, servers: readonly string[]): MoorageError {
  const known = servers.length > 0 ? `Servers here: ${servers.join(', ')}.` : 'No server is known here so far.';
  return new MoorageError('unknown_server', `There is no server "${server}". ${known}`, { servers });
}

export const SESSION_NOT_FOUND = 'This session does not exist or has ended. Initialize a new one.';

export const sessionNotFound = (): MoorageError => new MoorageError('session_not_found', SESSION_NOT_FOUND);

/** What makes SDK clients stop asking in peace: any other refusal costs them an attempt and an error. */
export const nothingFollows = (): MoorageError =>
  new MoorageError('method_not_allowed', 'Nothing follows on this stream (any more).', {
    allow: 'POST, DELETE, OPTIONS',
  });
