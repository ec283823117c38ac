/**
 * Owns the Limiter object. There is one for each principal (`principal:<subject>`), which makes its limits exact whatever
 * isolates its requests come to and lets nobody else wait for it; one for each server whose rate all callers share
 * (`server:<name>`); and a few for addresses (`ip:<shard>`).
 *
 * A principal's object asks the server's, once the principal's own limits have let a request through: who floods beyond its
 * own is refused without a server's object hearing of it. Meanwhile the request is held, so nothing has to be given back.
 *
 * Counting is in memory. What was used is written down a second later, so a lost object forgets a second; an alarm removes
 * it when everything is back at its full allowance. Keys `ledger`: `LedgerState`, `shares`: `SharesState`. Addresses are not
 * written down.
 */
import { DurableObject } from 'cloudflare:workers';
import type { Rate } from '../../shared/config/quotas.ts';
import { directoryOf } from '../directory/object.ts';
import type { Env } from '../env.ts';
import { Addresses } from './addresses.ts';
import { type Asked, Ledger, type LedgerState, type Taken } from './ledger.ts';
import { limitsOf, serverRateOf } from './settings.ts';
import { type Share, Shares, type SharesState } from './shares.ts';

const WRITE_AFTER_MS = 1_000;
const ADDRESS_SHARDS = 16;

/** Servers that exist, as far as this isolate has heard: no object is made for a name that somebody made up. */
const known = new Set<string>();

export class Limiter extends DurableObject<Env> {
  readonly #addresses = new Addresses();
  #ledger = new Ledger();
  #shares = new Shares();
  #dirty = false;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    void state.blockConcurrencyWhile(async () => {
      const ledger = await state.storage.get<LedgerState>('ledger');
      if (ledger) this.#ledger = new Ledger(ledger);
      const shares = await state.storage.get<SharesState>('shares');
      if (shares) this.#shares = new Shares(shares);
    });
  }

  /** Lets a request of principal `subject` through, or says how long it has to wait. */
  async take(asked: Asked, subject: string): Promise<Taken> {
    const limits = limitsOf(this.env);
    const own = this.#ledger.hold(asked, limits, Date.now());
    if (!own.allowed) return own;
    let shared: Taken | undefined;
    try {
      shared = await this.#askServer(asked.server, subject);
    } finally {
      if (shared?.allowed) {
        this.#ledger.count(asked, limits, Date.now());
        this.#writeSoon();
      } else this.#ledger.drop(asked, limits);
    }
    const standings = [...this.#ledger.standings(asked, limits, Date.now()), ...shared.standings];
    return { ...shared, standings };
  }

  /** Lets a request of principal `subject` to the server whose object this is through, as `Shares.take`. */
  takeShare(subject: string, rate: Rate): Share {
    const share = this.#shares.take(subject, rate, Date.now());
    if (share.waitMs === 0) this.#writeSoon();
    return share;
  }

  /** A call still runs. Whoever carries it says so more often than a lease lasts. */
  renew(call: string): void {
    this.#ledger.renew(call, limitsOf(this.env), Date.now());
  }

  /** A call is over. */
  release(call: string): void {
    this.#ledger.release(call);
  }

  /** As `Addresses.take`. */
  takeAddress(address: string): number {
    const { perIp } = limitsOf(this.env);
    return perIp ? this.#addresses.take(address, perIp, Date.now()) : 0;
  }

  override async alarm(): Promise<void> {
    await this.#write();
  }

  async #askServer(server: string | null, subject: string): Promise<Taken> {
    const rate = server === null ? undefined : serverRateOf(limitsOf(this.env), server);
    if (server === null || !rate || !(await this.#exists(server))) return { allowed: true, standings: [] };
    const share = await limiterFor(this.env, `server:${server}`).takeShare(subject, rate);
    const { amount: quota, window } = rate;
    const resetS = Math.ceil(share.resetMs / 1000);
    const standings = [{ name: 'server', quota, window, remaining: share.remaining, resetS } as const];
    if (share.waitMs === 0) return { allowed: true, standings };
    return { allowed: false, by: 'server', waitMs: share.waitMs, standings };
  }

  async #exists(server: string): Promise<boolean> {
    if (!known.has(server) && 'route' in (await directoryOf(this.env).resolve(server))) known.add(server);
    return known.has(server);
  }

  #writeSoon(): void {
    if (this.#dirty) return;
    this.#dirty = true;
    setTimeout(() => this.ctx.waitUntil(this.#write()), WRITE_AFTER_MS);
  }

  async #write(): Promise<void> {
    this.#dirty = false;
    const now = Date.now();
    const kept = { ledger: this.#ledger.state(now), shares: this.#shares.state(now) };
    const untils = Object.values(kept).flatMap((each) => (each ? [each.until] : []));
    if (untils.length === 0) return await this.ctx.storage.deleteAll();
    for (const [key, each] of Object.entries(kept)) if (each) await this.ctx.storage.put(key, each.state);
    await this.ctx.storage.setAlarm(Math.max(...untils));
  }
}

const limiterFor = (env: Env, name: string): DurableObjectStub<Limiter> =>
  env.LIMITER.get(env.LIMITER.idFromName(name));

/** The object that counts for a principal. */
export const limiterOf = (env: Env, subject: string): DurableObjectStub<Limiter> =>
  limiterFor(env, `principal:${subject}`);

/** The object that counts for an address. */
export function addressLimiterOf(env: Env, address: string): DurableObjectStub<Limiter> {
  let hash = 0;
  for (let i = 0; i < address.length; i++) hash = (Math.imul(hash, 31) + address.charCodeAt(i)) >>> 0;
  return limiterFor(env, `ip:${hash % ADDRESS_SHARDS}`);
}
