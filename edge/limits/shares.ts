/**
 * Owns how all callers of one server share its rate: a token bucket of all together, and how much of what was taken is whose.
 * Pure: time is passed in.
 *
 * What was taken and has not come back yet is debt. It comes back at the sustained rate, to all who are in debt evenly
 * (generalized processor sharing). Who has no debt takes any token there is; who has some takes as long as its debt stays
 * below `STEEPNESS` times what is left above a reserve (dynamic thresholds, Choudhury and Hahne 1998).
 *
 * Invariants: in any stretch of `t` ms no more than `burst + t / interval` are let through; a caller alone gets the
 * sustained rate; as long as the `n` who are in debt are no more than a quarter of the burst, each that asks no more often than
 * its part of the rate, `1 / n`, is let through, whatever the others do; callers are bounded, and who is forgotten for
 * another is the one with the least debt, forgiven to it alone and not to all together.
 */
import type { Rate } from '../../shared/config/quotas.ts';
import { afterOne, intervalOf, settled, waitOf } from './bucket.ts';

/** Callers in debt who are told apart. */
export const MAX_CALLERS = 1000;
/** The part of the burst that only callers without debt take of. */
const RESERVE = 1 / 4;
/** With these two a caller alone may have half of the burst at once. */
const STEEPNESS = 2;
/** What adding fractions leaves behind, in tokens. */
const CRUMB = 1e-6;

export interface SharesState {
  readonly fullAt: number;
  readonly at: number;
  readonly debts: readonly (readonly [caller: string, tokens: number])[];
}

/** How a caller stands after it asked. Times in milliseconds. */
export interface Share {
  /** 0: it was let through. */
  readonly waitMs: number;
  /** How many more it would be let through for at once. */
  readonly remaining: number;
  /** Until everything is back, if nobody asks. */
  readonly resetMs: number;
}

export class Shares {
  /** As `bucket.ts` has it, of all callers together. */
  #fullAt: number;
  /** Until when debts are paid. */
  #at: number;
  readonly #debts: Map<string, number>;

  constructor(state: SharesState = { fullAt: 0, at: 0, debts: [] }) {
    this.#fullAt = state.fullAt;
    this.#at = state.at;
    this.#debts = new Map(state.debts);
  }

  /** Lets one request of `caller` through, or says how long it has to wait; if nobody else asks, it is let through then. */
  take(caller: string, rate: Rate, now: number): Share {
    this.#pay(rate, now);
    const waitMs = this.#waitOf(caller, rate, now);
    if (waitMs > 0) this.#fullAt = settled(this.#fullAt, rate, now);
    else {
      this.#fullAt = afterOne(this.#fullAt, rate, now);
      this.#debts.set(caller, this.#debtOf(caller) + 1);
      if (this.#debts.size > MAX_CALLERS) this.#forgetOne();
    }
    return { waitMs, remaining: this.#remaining(caller, rate, now), resetMs: Math.max(0, this.#fullAt - now) };
  }

  /** What is worth keeping, and until when; null where everything is back. */
  state(now: number): { readonly state: SharesState; readonly until: number } | null {
    if (this.#fullAt <= now) return null;
    return { state: { fullAt: this.#fullAt, at: this.#at, debts: [...this.#debts] }, until: this.#fullAt };
  }

  /** Callers who are told apart. */
  get size(): number {
    return this.#debts.size;
  }

  #debtOf(caller: string): number {
    return this.#debts.get(caller) ?? 0;
  }

  /** What came back since the last time, to all who are in debt evenly: who is out of it leaves its part to the others. */
  #pay(rate: Rate, now: number): void {
    // A clock that was set back pays nothing, and goes on from there.
    let tokens = Math.max(0, now - this.#at) / intervalOf(rate);
    this.#at = now;
    if (this.#fullAt <= now) this.#debts.clear();
    for (let last = false; !last && this.#debts.size > 0; ) {
      const least = Math.min(...this.#debts.values());
      const each = Math.min(tokens / this.#debts.size, least);
      last = each < least;
      tokens -= each * this.#debts.size;
      for (const [caller, debt] of this.#debts) {
        if (debt - each > CRUMB) this.#debts.set(caller, debt - each);
        else this.#debts.delete(caller);
      }
    }
  }

  #waitOf(caller: string, rate: Rate, now: number): number {
    const untilOne = waitOf(this.#fullAt, rate, now);
    const debt = this.#debtOf(caller);
    const left = this.#left(rate, now);
    const over = debt + 1 - STEEPNESS * (left - rate.burst * RESERVE);
    if (debt === 0 || over <= CRUMB) return untilOne;
    const callers = this.#debts.size;
    // Its debt is gone, or what is left has grown enough for it, whichever comes first.
    const tokens = Math.min(debt * callers, rate.burst - left, over / (STEEPNESS + 1 / callers));
    return Math.max(untilOne, Math.ceil(tokens * intervalOf(rate)));
  }

  #remaining(caller: string, rate: Rate, now: number): number {
    const debt = this.#debtOf(caller);
    const left = this.#left(rate, now);
    const below = STEEPNESS * (left - rate.burst * RESERVE) - debt - 1;
    const more = below < -CRUMB ? 0 : Math.floor(below / (STEEPNESS + 1) + CRUMB) + 1;
    return Math.min(Math.floor(left + CRUMB), debt === 0 ? Math.max(1, more) : more);
  }

  /** Tokens that are there. */
  #left(rate: Rate, now: number): number {
    return rate.burst - (settled(this.#fullAt, rate, now) - now) / intervalOf(rate);
  }

  #forgetOne(): void {
    const least = Math.min(...this.#debts.values());
    for (const [caller, debt] of this.#debts) {
      if (debt === least) return void this.#debts.delete(caller);
    }
  }
}
