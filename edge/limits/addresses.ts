/**
 * Owns what addresses have used, a bounded table. Pure: time is passed in.
 *
 * It counts before anybody is authenticated, so whoever has many addresses could fill it: the one that was heard of the
 * longest ago makes room for a new one, and nobody is kept out by strangers.
 */
import type { Rate } from '../../shared/config/quotas.ts';
import { afterOne, settled, waitOf } from './bucket.ts';

export const MAX_ADDRESSES = 10_000;

export class Addresses {
  /** In the order in which they were last let through. */
  readonly #fullAt = new Map<string, number>();

  /** 0 when the address is let through, else how long it has to wait, in milliseconds. */
  take(address: string, rate: Rate, now: number): number {
    const fullAt = this.#fullAt.get(address) ?? 0;
    const wait = waitOf(fullAt, rate, now);
    if (wait > 0) {
      this.#fullAt.set(address, settled(fullAt, rate, now));
      return wait;
    }
    this.#fullAt.delete(address);
    this.#fullAt.set(address, afterOne(fullAt, rate, now));
    const [oldest] = this.#fullAt.keys();
    if (this.#fullAt.size > MAX_ADDRESSES && oldest !== undefined) this.#fullAt.delete(oldest);
    return 0;
  }

  get size(): number {
    return this.#fullAt.size;
  }
}
