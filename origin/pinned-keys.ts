/**
 * Owns which keys of the edge this origin believes, while the edge exchanges them.
 *
 * An edge that is about to change its key announces the next one in a statement signed by the present one; the origin then
 * believes both. When a statement of the new key names the old one no more, the old one is believed for as long as what it
 * signed last may be good. Invariant: only a key that is pinned already can bring another.
 */
import type { CryptoKey } from 'jose';
import type { PublicKey } from '../shared/enrolment.ts';
import { CLOCK_TOLERANCE_S, type EdgeKeys, GRANT_LIFE_S, importKey, verifyKeys } from '../shared/grant.ts';

interface Pinned {
  readonly jwk: PublicKey;
  readonly key: CryptoKey;
  /** In milliseconds; the edge names it no more. */
  readonly until?: number;
}

export class PinnedKeys {
  readonly #originId: string;
  readonly #now: () => number;
  readonly #onChange: (keys: readonly PublicKey[]) => void;
  #pinned: readonly Pinned[];

  private constructor(
    options: { originId: string; now: () => number; onChange: (keys: readonly PublicKey[]) => void },
    pinned: readonly Pinned[],
  ) {
    this.#originId = options.originId;
    this.#now = options.now;
    this.#onChange = options.onChange;
    this.#pinned = pinned;
  }

  /** `onChange` is told what to pin from now on, whenever that changes. At least one key. */
  static async of(
    keys: readonly PublicKey[],
    options: { originId: string; now: () => number; onChange: (keys: readonly PublicKey[]) => void },
  ): Promise<PinnedKeys> {
    return new PinnedKeys(options, await imported(keys));
  }

  get keys(): EdgeKeys {
    const now = this.#now();
    const [first, ...others] = this.#pinned
      .filter(({ until }) => until === undefined || until > now)
      .map(({ key }) => key);
    if (!first) throw new TypeError('An origin without a key of its edge believes nobody.');
    return [first, ...others];
  }

  /** Takes a statement of the edge. @throws MoorageError `grant_invalid` when no pinned key signed it. */
  async learn(statement: string): Promise<void> {
    const now = this.#now();
    const named = await verifyKeys(this.keys, statement, this.#originId, now);
    const stays = new Set(named.map(({ x }) => x));
    const until = now + (GRANT_LIFE_S + CLOCK_TOLERANCE_S) * 1000;
    const leaving = this.#pinned
      .filter(({ jwk }) => !stays.has(jwk.x))
      .map((pinned) => ({ ...pinned, until: pinned.until ?? until }))
      .filter((pinned) => pinned.until > now);
    const before = this.#pinned.filter((pinned) => pinned.until === undefined).map(({ jwk }) => jwk.x);
    this.#pinned = [...(await imported(named)), ...leaving];
    if (before.join() !== named.map(({ x }) => x).join()) this.#onChange(named);
  }
}

const imported = (keys: readonly PublicKey[]): Promise<Pinned[]> =>
  Promise.all(keys.map(async (jwk) => ({ jwk, key: await importKey(jwk) })));
