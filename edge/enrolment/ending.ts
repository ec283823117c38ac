/**
 * Owns that an exchange with an origin does not outlive the trust in it: where an enrolled origin is revoked, what it still
 * answers is heard no more.
 */
import { endable } from '../endable.ts';
import type { Env } from '../env.ts';
import { isBound, originOf } from './known.ts';

/** How often an exchange that runs looks whether its origin is trusted, in milliseconds. Mostly it looks at what is remembered. */
const LOOK_EVERY_MS = 1_000;

/** Calls `end` once the origin is trusted no more. @returns what stops looking. */
export function whenRevoked(env: Env, origin: string, end: () => void): () => void {
  if (isBound(env, origin)) return () => undefined;
  const timer = setInterval(async () => {
    // A Directory that cannot be asked says nothing against the origin.
    if (await originOf(env, origin).catch(() => true)) return;
    clearInterval(timer);
    end();
  }, LOOK_EVERY_MS);
  return () => clearInterval(timer);
}

/** An origin's response, whose stream breaks when the origin is revoked. */
export function whileTrusted(env: Env, origin: string, response: Response): Response {
  if (isBound(env, origin)) return response;
  return endable(response, (end) => whenRevoked(env, origin, () => end('the origin was revoked', 'failure')));
}
