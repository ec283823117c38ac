/**
 * Owns the Limiter object. There is one for each principal (`principal:<subject>`), which makes its limits exact whatever
 * isolates its requests come to and lets nobody else wait for it; and a few for addresses (`ip:<shard>`).
 *
 * Counting is in memory. What was used is written down a second later, so a lost object forgets a second; an alarm removes
 * it when everything is back at its full allowance. Key `ledger`: `LedgerState`. Addresses are not written down.
 */
import { DurableObject } from 'cloudflare:workers';
import type { Env } from '../env.ts';
import { Addresses } from './addresses.ts';
import { type Asked, Ledger, type LedgerState, type Taken } from './ledger.ts';
import { limitsOf } from './settings.ts';

const WRITE_AFTER_MS = 1_000;
const ADDRESS_SHARDS = 16;

export class Limiter extends DurableObject<Env> {
  readonly #addresses = new Addresses();
  #ledger = new Ledger();
  #dirty = false;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    void state.blockConcurrencyWhile(async () => {
      const stored = await state.storage.get<LedgerState>('ledger');
      if (stored) this.#ledger = new Ledger(stored);
    });
  }

  /** Lets a request of the principal through, or says how long it has to wait. */
  take(asked: Asked): Taken {
    const taken = this.#ledger.take(asked, limitsOf(this.env), Date.now());
    if (taken.allowed) this.#writeSoon();
    return taken;
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

  #writeSoon(): void {
    if (this.#dirty) return;
    this.#dirty = true;
    setTimeout(() => this.ctx.waitUntil(this.#write()), WRITE_AFTER_MS);
  }

  async #write(): Promise<void> {
    this.#dirty = false;
    const kept = this.#ledger.state(Date.now());
    if (!kept) return await this.ctx.storage.deleteAll();
    await this.ctx.storage.put('ledger', kept.state);
    await this.ctx.storage.setAlarm(kept.until);
  }
}

/** The object that counts for a principal. */
export const limiterOf = (env: Env, subject: string): DurableObjectStub<Limiter> =>
  env.LIMITER.get(env.LIMITER.idFromName(`principal:${subject}`));

/** The object that counts for an address. */
export function addressLimiterOf(env: Env, address: string): DurableObjectStub<Limiter> {
  let hash = 0;
  for (let i = 0; i < address.length; i++) hash = (Math.imul(hash, 31) + address.charCodeAt(i)) >>> 0;
  return env.LIMITER.get(env.LIMITER.idFromName(`ip:${hash % ADDRESS_SHARDS}`));
}
