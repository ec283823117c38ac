/**
 * Owns the memory that machines which are awake have together: who waits for some, and for how long, who is told to give his
 * up (`admission.ts` decides), and for whose wake something waits in what is free (`standby.ts` decides).
 *
 * Invariants: a machine whose turn has not come is not woken; who waits is answered once, with memory or why not.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';
import { place, type Resident } from './admission.ts';
import { isAwake, isLeaving, type MachineEvent, yieldsSince } from './machine-state.ts';
import type { Send, Slot, Waiter } from './slot.ts';
import { standBy } from './standby.ts';

/** How long a call waits for memory, in milliseconds, and when it may try again. */
const PLACE_WAIT_MS = 30_000;
const TRY_AGAIN_MS = 5_000;
/** Machines that wait for memory, at most. */
const MAX_CLAIMS = 1_000;

export interface MemoryOptions {
  /** All machines, by their keys. */
  readonly slots: ReadonlyMap<string, Slot>;
  readonly budgetMiB: number;
  /** Sleeping machines for whose wake something waits, at most. */
  readonly standbys: number;
  readonly send: Send;
  readonly log: Log;
  /** Milliseconds. */
  readonly now: () => number;
}

export class Memory {
  readonly #options: MemoryOptions;
  /** Machines that wait for memory, in order. */
  readonly #claims = new Map<string, Slot>();
  #placing = false;

  constructor(options: MemoryOptions) {
    this.#options = options;
  }

  /** Whether anybody waits. */
  get isWanted(): boolean {
    return this.#claims.size > 0;
  }

  /** Whether one more machine may not even wait. */
  isOverrun({ key }: Slot): boolean {
    return !this.#claims.has(key) && this.#claims.size >= MAX_CLAIMS;
  }

  /** Whether it takes memory when it is wanted. One that failed is refused without any. */
  needsPlace({ state, memoryMiB = 0 }: Slot): boolean {
    return memoryMiB > 0 && !isAwake(state) && !(state.name === 'failed' && this.#options.now() < state.until);
  }

  /** `waiter` waits for the memory of its machine, for a while. */
  claim(slot: Slot, waiter: Waiter): void {
    waiter.timer = setTimeout(() => {
      slot.waiters = slot.waiters.filter((other) => other !== waiter);
      if (slot.waiters.length === 0) {
        this.#claims.delete(slot.key);
        this.#options.log.warn(
          `machine ${slot.key}: no memory for it in ${PLACE_WAIT_MS / 1000} s, the others are in use`,
        );
      }
      waiter.reject(this.refusal(slot));
      this.place();
    }, PLACE_WAIT_MS).unref();
    this.#claims.set(slot.key, slot);
    this.place();
  }

  /** What one is told for whom there is none. */
  refusal({ key }: Slot): MoorageError {
    return new MoorageError(
      'overloaded',
      `All the memory that this origin has for machines is in use, so "${key}" could not be woken. Try again in ${TRY_AGAIN_MS / 1000} s.`,
      { retryAfterMs: TRY_AGAIN_MS },
    );
  }

  /** Gives memory to the machines that wait for it, and has others give up theirs. */
  place(): void {
    if (this.#placing) return;
    this.#placing = true;
    for (let again = true; again && this.#claims.size > 0; ) {
      const claims = [...this.#claims.values()].map(({ key, memoryMiB = 0 }) => ({ key, memoryMiB }));
      const verdict = place(claims, this.#residents(), this.#options.budgetMiB);
      for (const key of verdict.yield) this.#tell(key, { type: 'yield' });
      for (const key of verdict.admit) this.#admit(key);
      again = verdict.admit.length > 0;
    }
    this.#placing = false;
  }

  #admit(key: string): void {
    const slot = this.#claims.get(key);
    this.#claims.delete(key);
    if (!slot) return;
    const { waiters } = slot;
    for (const waiter of waiters) clearTimeout(waiter.timer);
    for (let count = waiters.length; count > 0; count -= 1) this.#options.send(slot, { type: 'want' });
  }

  #tell(key: string, event: MachineEvent): void {
    const slot = this.#options.slots.get(key);
    if (slot) this.#options.send(slot, event);
  }

  #residents(): Resident[] {
    return [...this.#options.slots.values()].flatMap(({ key, state, sleeps, memoryMiB = 0 }) =>
      memoryMiB === 0 || !isAwake(state)
        ? []
        : [{ key, memoryMiB, idleSince: yieldsSince(state, this.#options.now(), sleeps), leaving: isLeaving(state) }],
    );
  }

  /**
   * Has something wait for the machines that are likely to wake next, after `changed` came to another state. A wake is not
   * to wait for the start of another's: that is done when one has fallen asleep.
   */
  standBy(changed: Slot, isClosed: boolean): void {
    const { slots, budgetMiB, standbys } = this.#options;
    if (standbys === 0) return;
    const sleepers = [...slots.values()].flatMap(({ key, state, machine, removing }) => {
      const standby = machine?.sleep?.standby;
      if (state.name !== 'hibernated' || standby === undefined || removing) return [];
      const { waits, memoryMiB } = standby;
      return [{ key, idleSince: state.idleSince, waits, memoryMiB }];
    });
    const taken = this.#residents().reduce((sum, { memoryMiB }) => sum + memoryMiB, 0);
    // Whoever waits for memory comes first.
    const freeMiB = this.isWanted || isClosed ? 0 : budgetMiB - taken;
    const { start, end } = standBy(sleepers, standbys, freeMiB);
    for (const key of end) void slots.get(key)?.machine?.sleep?.standby?.end();
    if (changed.state.name !== 'hibernated') return;
    for (const key of start) slots.get(key)?.machine?.sleep?.standby?.start();
  }

  /** Those who wait for memory will not get any. */
  withdraw(slot: Slot, why: string): void {
    if (!this.#claims.delete(slot.key)) return;
    for (const waiter of slot.waiters.splice(0)) {
      clearTimeout(waiter.timer);
      waiter.reject(new MoorageError('machine_failed', why));
    }
  }
}
