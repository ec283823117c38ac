/**
 * Owns what a client of the stateless era is told about how long, and for whom, an answer to discovery is good
 * (2026-07-28, server/utilities/caching). Pure.
 *
 * A server with sessions says nothing of it, and SDKs write `ttlMs: 0` and `private` where nothing was said. We say the same:
 * ask again whenever you need it. Asking wakes nobody, and what a client keeps for itself cannot be taken back.
 */
type Result = Readonly<Record<string, unknown>>;

/** `result` as it is told `ageMs` after its server gave it: with both hints, and what is left of a lifetime. The same object where nothing is missing. */
export function hinted(result: Result, ageMs = 0): Result {
  const { ttlMs = 0, cacheScope = 'private' } = result;
  const left = typeof ttlMs === 'number' ? Math.max(0, ttlMs - ageMs) : ttlMs;
  return left === result.ttlMs && cacheScope === result.cacheScope ? result : { ...result, ttlMs: left, cacheScope };
}

/** How long a copy is good by its server's own word, in milliseconds; null where it gives none. Zero is none: see above. */
export function lifetimeOf({ ttlMs }: Result): number | null {
  return typeof ttlMs === 'number' && ttlMs > 0 ? ttlMs : null;
}
