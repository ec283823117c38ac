/**
 * Owns which origins this edge trusts: those of `MOORAGE_ORIGINS`, and those that were enrolled (the Directory has them).
 *
 * An isolate asks the Directory for an enrolled origin at most every few seconds, so a revoked one is called no more after
 * `KNOWN_FOR_MS`; its own link is checked against the Directory itself, at once.
 */
import { directoryOf } from '../directory/object.ts';
import { type Env, type KnownOrigin, originsOf } from '../env.ts';
import { Recent } from './recent.ts';

const recent = new Recent<KnownOrigin>();

/** An origin as it is pinned now. */
export async function originNow(env: Env, id: string): Promise<KnownOrigin | undefined> {
  return originsOf(env).get(id) ?? (await directoryOf(env).enrolled(id));
}

/** An origin to call. */
export async function originOf(env: Env, id: string): Promise<KnownOrigin | undefined> {
  return originsOf(env).get(id) ?? (await recent.of(id, Date.now(), () => originNow(env, id)));
}

/** Whether an origin is trusted for as long as this edge runs: it is in no need of being looked at again. */
export const isBound = (env: Env, id: string): boolean => originsOf(env).has(id);
