/**
 * Owns what one principal has used: its rates (all in all, by session), its calls of the day, and the calls that run. Pure:
 * time is passed in.
 *
 *   hold ──refused──▶ nothing
 *     └──held──▶ count (it is let through) or drop (somebody else refused it)
 *
 * Invariants: a request counts against all limits that concern it or, when one refuses it, against none; what is held has its
 * room, so to count it exceeds nothing; the lease of a call ends by itself, so a slot is given back whatever becomes of
 * who held it; keys are bounded, and one more than there is room for is refused rather than another forgotten.
 */
import type { CallerLimits, Rate } from '../../shared/config/quotas.ts';
import { afterOne, intervalOf, remainingOf, settled, waitOf } from './bucket.ts';

/** Sessions that are counted apart, beside those that are back at their full allowance. */
export const MAX_KEYS = 2000;
/** A call that is not renewed for this long is over, in milliseconds. */
export const LEASE_MS = 60_000;
/** When to try again where nobody knows when a running call ends, in milliseconds. */
const CONCURRENT_RETRY_MS = 1_000;
const DAY_MS = 24 * 60 * 60 * 1000;

export type LimitName = 'principal' | 'session' | 'server' | 'concurrent' | 'daily' | 'ip';

/** A request that wants to be let through. */
export interface Asked {
  /** Null where there is none (yet). */
  readonly session: string | null;
  /** The server whose own limit it concerns, which is not counted here. */
  readonly server: string | null;
  /** Its principal, session and call were counted already. */
  readonly counted: boolean;
  /** Name of the lease, for a call. */
  readonly call: string | null;
}

/** How a limit stands, as `RateLimit` headers tell it. */
export interface Standing {
  readonly name: LimitName;
  readonly quota: number;
  /** In seconds. */
  readonly window: number;
  readonly remaining: number;
  /** Until `remaining` is at its highest again, in seconds. */
  readonly resetS: number;
}

export type Taken =
  | { readonly allowed: true; readonly standings: Standing[] }
  | { readonly allowed: false; readonly by: LimitName; readonly waitMs: number; readonly standings: Standing[] };

/** What survives a restart. Calls that run do not: whoever carries them says so again. What is held is held by nobody then. */
export interface LedgerState {
  readonly fullAt: readonly (readonly [key: string, fullAt: number])[];
  readonly day: number;
  readonly calls: number;
}

export class Ledger {
  readonly #fullAt: Map<string, number>;
  /** Requests that are held, by the keys of what they will count against. */
  readonly #held = new Map<string, number>();
  readonly #leases = new Map<string, number>();
  #day: number;
  #calls: number;

  constructor(state: LedgerState = { fullAt: [], day: 0, calls: 0 }) {
    this.#fullAt = new Map(state.fullAt);
    this.#day = state.day;
    this.#calls = state.calls;
  }

  /** Holds room for a request, until `count` or `drop`, or says how long it has to wait. */
  hold(asked: Asked, limits: CallerLimits, now: number): Taken {
    const rates = ratesOf(asked, limits);
    this.#forget(now);
    const refusals = [
      ...rates.map(({ name, key, rate }) => ({ by: name, waitMs: waitOf(this.#reached(key, rate, now), rate, now) })),
      ...(isCall(asked) ? this.#callRefusals(limits, now) : []),
    ].filter(({ waitMs }) => waitMs > 0);
    if (!this.#hasRoomFor(rates)) refusals.push({ by: 'session', waitMs: CONCURRENT_RETRY_MS });
    const longest = refusals.sort((a, b) => b.waitMs - a.waitMs)[0];
    if (longest) {
      for (const { key, rate } of rates) this.#settle(key, rate, now);
      return { allowed: false, ...longest, standings: this.standings(asked, limits, now) };
    }
    for (const key of heldKeys(asked, limits)) this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
    if (isCall(asked) && limits.concurrent !== undefined) this.#leases.set(asked.call, now + LEASE_MS);
    return { allowed: true, standings: this.standings(asked, limits, now) };
  }

  /** What was held is used. */
  count(asked: Asked, limits: CallerLimits, now: number): void {
    this.#forget(now);
    this.#letGo(asked, limits);
    for (const { key, rate } of ratesOf(asked, limits)) {
      this.#fullAt.set(key, afterOne(this.#fullAt.get(key) ?? 0, rate, now));
    }
    if (isCall(asked)) this.#calls++;
  }

  /** What was held is not used: it never was. */
  drop(asked: Asked, limits: CallerLimits): void {
    this.#letGo(asked, limits);
    if (isCall(asked)) this.#leases.delete(asked.call);
  }

  /** How the limits that concern a request stand, what is held counted as used. */
  standings(asked: Asked, limits: CallerLimits, now: number): Standing[] {
    const standings = ratesOf(asked, limits).map(({ name, key, rate }): Standing => {
      const fullAt = this.#reached(key, rate, now);
      return {
        name,
        quota: rate.amount,
        window: rate.window,
        remaining: remainingOf(fullAt, rate, now),
        resetS: Math.max(0, Math.ceil((fullAt - now) / 1000)),
      };
    });
    if (limits.daily !== undefined) {
      const resetS = Math.ceil(untilTomorrow(now) / 1000);
      const remaining = Math.max(0, limits.daily - this.#calls - (this.#held.get(CALLS) ?? 0));
      standings.push({ name: 'daily', quota: limits.daily, window: DAY_MS / 1000, remaining, resetS });
    }
    return standings;
  }

  /** A call still runs. */
  renew(call: string, limits: CallerLimits, now: number): void {
    // After a restart nobody is known to run; what was let through before is over soon or says so.
    if (limits.concurrent !== undefined && this.#leases.size < MAX_KEYS) this.#leases.set(call, now + LEASE_MS);
  }

  release(call: string): void {
    this.#leases.delete(call);
  }

  /** Calls that run. */
  running(now: number): number {
    this.#forget(now);
    return this.#leases.size;
  }

  /** What is worth keeping, and until when; null where everything is back at its full allowance. */
  state(now: number): { readonly state: LedgerState; readonly until: number } | null {
    this.#forget(now);
    if (this.#fullAt.size === 0 && this.#calls === 0) return null;
    const until = Math.max(this.#calls > 0 ? (this.#day + 1) * DAY_MS : 0, ...this.#fullAt.values());
    return { state: { fullAt: [...this.#fullAt], day: this.#day, calls: this.#calls }, until };
  }

  #callRefusals({ concurrent, daily }: CallerLimits, now: number): { by: LimitName; waitMs: number }[] {
    return [
      ...(concurrent !== undefined && this.#leases.size >= concurrent
        ? [{ by: 'concurrent' as const, waitMs: CONCURRENT_RETRY_MS }]
        : []),
      ...(daily !== undefined && this.#calls + (this.#held.get(CALLS) ?? 0) >= daily
        ? [{ by: 'daily' as const, waitMs: untilTomorrow(now) }]
        : []),
    ];
  }

  /** The state of a rate with what is held of it. */
  #reached(key: string, rate: Rate, now: number): number {
    const held = this.#held.get(key) ?? 0;
    return settled(this.#fullAt.get(key) ?? 0, rate, now) + held * intervalOf(rate);
  }

  #hasRoomFor(rates: readonly Counted[]): boolean {
    const onlyHeld = [...this.#held.keys()].filter((key) => !this.#fullAt.has(key)).length;
    const fresh = rates.filter(({ key }) => !this.#fullAt.has(key) && !this.#held.has(key)).length;
    return this.#fullAt.size + onlyHeld + fresh <= MAX_KEYS;
  }

  #letGo(asked: Asked, limits: CallerLimits): void {
    for (const key of heldKeys(asked, limits)) {
      const held = (this.#held.get(key) ?? 0) - 1;
      if (held > 0) this.#held.set(key, held);
      else this.#held.delete(key);
    }
  }

  #settle(key: string, rate: Rate, now: number): void {
    const fullAt = this.#fullAt.get(key);
    if (fullAt !== undefined) this.#fullAt.set(key, settled(fullAt, rate, now));
  }

  /** Drops what says nothing any more. */
  #forget(now: number): void {
    for (const [key, fullAt] of this.#fullAt) if (fullAt <= now) this.#fullAt.delete(key);
    for (const [call, endsAt] of this.#leases) if (endsAt <= now) this.#leases.delete(call);
    const day = Math.floor(now / DAY_MS);
    if (day !== this.#day) {
      this.#day = day;
      this.#calls = 0;
    }
  }
}

interface Counted {
  readonly name: 'principal' | 'session';
  readonly key: string;
  readonly rate: Rate;
}

function ratesOf({ session, counted }: Asked, { perPrincipal, perSession }: CallerLimits): Counted[] {
  if (counted) return [];
  const rates: Counted[] = [];
  if (perPrincipal) rates.push({ name: 'principal', key: 'principal', rate: perPrincipal });
  if (perSession && session !== null) rates.push({ name: 'session', key: `session ${session}`, rate: perSession });
  return rates;
}

/** Calls are held under this key. */
const CALLS = 'calls';

const heldKeys = (asked: Asked, limits: CallerLimits): string[] => [
  ...ratesOf(asked, limits).map(({ key }) => key),
  ...(isCall(asked) ? [CALLS] : []),
];

const isCall = (asked: Asked): asked is Asked & { readonly call: string } => asked.call !== null && !asked.counted;

const untilTomorrow = (now: number): number => DAY_MS - (now % DAY_MS);
