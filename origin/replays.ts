/**
 * Owns which proofs of the edge were used: each is taken once.
 *
 * Invariants: an id is remembered for as long as its proof could be believed; when there is no room the next proof is
 * refused, never an old one forgotten. A proof from before the agent started may have been used in its earlier life and is
 * refused; so that this needs no disk, the edge's clock is learnt from its greeting on the link.
 */
import { MoorageError } from '../shared/errors.ts';
import { CLOCK_TOLERANCE_S } from '../shared/grant.ts';
import type { Proof } from '../shared/proof.ts';

/** Proofs that may be good at once: 2,000 requests a second for the longest time that one is believed. */
const MAX_REMEMBERED = 400_000;

export class Replays {
  readonly #now: () => number;
  readonly #startedAt: number;
  /** Ids by when they may be forgotten, in the order of their arrival. */
  readonly #used = new Map<string, number>();
  /** How far the edge's clock is ahead of ours, in milliseconds; undefined until the edge said what time it is. */
  #ahead: number | undefined;

  constructor(now: () => number) {
    this.#now = now;
    this.#startedAt = now();
  }

  /** The edge's clock shows this now. */
  setEdgeClock(at: number): void {
    this.#ahead = at - this.#now();
  }

  /** Takes a proof, once. @throws MoorageError `grant_invalid` (used before), `overloaded`. */
  take({ id, madeAt, goodUntil }: Proof): void {
    const now = this.#now();
    this.#forget(now);
    if (madeAt < this.#startedAt + (this.#ahead ?? -CLOCK_TOLERANCE_S * 1000) || this.#used.has(id)) {
      throw new MoorageError('grant_invalid', 'The proof was used before.');
    }
    if (this.#used.size >= MAX_REMEMBERED) {
      throw new MoorageError('overloaded', 'Too many requests reach this origin at once. Try again in a minute.');
    }
    // `verifyProof` believes it by our clock, which it takes in whole seconds.
    this.#used.set(id, goodUntil + (CLOCK_TOLERANCE_S + 1) * 1000);
  }

  /** The oldest are first, give or take the difference of their lives: one that stays longer than it must does no harm. */
  #forget(now: number): void {
    for (const [id, until] of this.#used) {
      if (until >= now) return;
      this.#used.delete(id);
    }
  }
}
