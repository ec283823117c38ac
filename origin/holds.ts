/**
 * Owns who outside a machine asks that it stay awake: a hold of the owner is a lease with an end (`moorage hold`).
 *
 * One hold a machine: another one sets its end anew. It ends with its time, when it is released, when the machine ends, and
 * with the agent, which puts its machines to sleep whoever holds them.
 */
import { MoorageError } from '../shared/errors.ts';
import type { Machines } from './machines.ts';
import type { Entrances } from './shell/entrances.ts';
import type { Lease } from './supervisor/slot.ts';

/** A hold ends after this time at the latest, in milliseconds: as those from inside do. */
export const LONGEST_HOLD_MS = 7 * 24 * 3600 * 1000;

/** A machine that is held, and when that ends (ISO 8601). */
export interface Hold {
  readonly machine: string;
  readonly until: string;
}

interface Held {
  readonly lease: Lease;
  readonly until: number;
  readonly timer: NodeJS.Timeout;
}

export class Holds {
  readonly #machines: Pick<Machines, 'lease'>;
  readonly #entrances: Pick<Entrances, 'of'>;
  /** By the keys of the machines. */
  readonly #held = new Map<string, Held>();

  constructor(options: { machines: Pick<Machines, 'lease'>; entrances: Pick<Entrances, 'of'> }) {
    this.#machines = options.machines;
    this.#entrances = options.entrances;
  }

  /**
   * Boots or wakes the machine of `server`, which stays awake for `forMs`. A machine of a single caller is named by its key.
   * @throws MoorageError `unknown_server`, `no_machine`, `overloaded`, `machine_failed`.
   */
  async hold(server: string, forMs: number): Promise<Hold> {
    const definition = this.#entrances.of(server);
    const { machine: key } = definition;
    const lease = await this.#machines.lease(definition);
    this.#end(key);
    const until = Date.now() + Math.min(forMs, LONGEST_HOLD_MS);
    const held: Held = { lease, until, timer: setTimeout(() => this.#end(key), until - Date.now()).unref() };
    this.#held.set(key, held);
    void lease.machine.gone.then(() => {
      if (this.#held.get(key) === held) this.#end(key);
    });
    return { machine: key, until: new Date(until).toISOString() };
  }

  list(): Hold[] {
    return [...this.#held].map(([machine, { until }]) => ({ machine, until: new Date(until).toISOString() }));
  }

  /** @throws MoorageError `not_found`, or as `hold`. */
  release(server: string): void {
    const key = this.#held.has(server) ? server : this.#entrances.of(server).machine;
    if (!this.#end(key)) throw new MoorageError('not_found', `The machine of "${server}" is not held.`);
  }

  /** Ends all of them. */
  close(): void {
    for (const key of this.#held.keys()) this.#end(key);
  }

  #end(key: string): boolean {
    const held = this.#held.get(key);
    if (!held) return false;
    this.#held.delete(key);
    clearTimeout(held.timer);
    held.lease.release();
    return true;
  }
}
