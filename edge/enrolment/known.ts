/**
 * Owns which origins this edge trusts: those of `MOORAGE_ORIGINS`, and those that were enrolled (the Directory has them).
 *
 * An isolate asks the Directory for an enrolled origin at most every few seconds, so a revoked one is called no more after
 * `KNOWN_FOR_MS`; its own link is checked against the Directory itself, at once.
 */
import { directoryOf } from '../directory/object.ts';
import { type Env, type KnownOrigin, originsOf } from '../env.ts';

/** How long a call may still go to an origin that was revoked meanwhile, in milliseconds. */
export const KNOWN_FOR_MS = 5_000;

const recent = new Map<string, { readonly origin: KnownOrigin | undefined; readonly until: number }>();

/** An origin as it is pinned now. */
export async function originNow(env: Env, id: string): Promise<KnownOrigin | undefined> {
  return originsOf(env).get(id) ?? (await directoryOf(env).enrolled(id));
}

/** An origin to call. */
export async function originOf(env: Env, id: string): Promise<KnownOrigin | undefined> {
  const bound = originsOf(env).get(id);
  if (bound) return bound;
  const now = Date.now();
  const known = recent.get(id);
  if (known && known.until > now) return known.origin;
  const origin = await originNow(env, id);
  // Ids come from routes alone, so there are as many as origins.
  recent.set(id, { origin, until: now + KNOWN_FOR_MS });
  return origin;
}
