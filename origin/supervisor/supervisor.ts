/**
 * Owns the machines of this origin: who may use one, and when. `machine.ts` decides, `operations.ts` acts through the driver,
 * `memory.ts` shares out the host's memory.
 *
 * Invariants: one driver call per machine at a time; a machine that was leased may end at any moment and says so through
 * `gone`; it does not sleep before the lease is released; after `close` nothing runs and nothing boots.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';
import type { RunningMachine } from '../vm/driver.ts';
import { tellLoop } from './crash-loop.ts';
import { MAX_WAITING, step } from './machine.ts';
import {
  ABSENT,
  asleepSince,
  dueAt,
  loopOf,
  type MachineEffect,
  type MachineEvent,
  type MachineState,
} from './machine-state.ts';
import { Memory } from './memory.ts';
import { Operations } from './operations.ts';
import { AT_REST, type Boot, type Lease, type MachineOptions, type Slot, type Waiter } from './slot.ts';

/** A machine's state, for people. */
export interface Seen {
  readonly key: string;
  readonly state: MachineState['name'];
  /** A sentence without its full stop, for one that is in a crash loop. */
  readonly crashLoop?: string;
}

/** Node's timers take no longer delay. */
const LONGEST_TIMER_MS = 0x7fff_ffff;

export class Supervisor {
  readonly #slots = new Map<string, Slot>();
  readonly #log: Log;
  readonly #now: () => number;
  readonly #memory: Memory;
  readonly #operations: Operations;
  #closed = false;

  /**
   * `memoryMiB` is what machines that are awake may have together; without it every one has a place. `standbys` is for how
   * many sleeping machines something may wait ahead of their wake, default 0. `wakesAtOnce` machines are woken at the same
   * time, by default as many as there are processors, and at least two.
   */
  constructor(options: {
    log: Log;
    memoryMiB?: number | undefined;
    standbys?: number | undefined;
    wakesAtOnce?: number | undefined;
    now?: () => number;
  }) {
    const { log, memoryMiB: budgetMiB = Number.POSITIVE_INFINITY, standbys = 0, now = Date.now } = options;
    this.#log = log;
    this.#now = now;
    const send = (slot: Slot, event: MachineEvent) => this.#send(slot, event);
    this.#memory = new Memory({ slots: this.#slots, budgetMiB, standbys, send, log, now });
    this.#operations = new Operations({ send, log, now, wakesAtOnce: options.wakesAtOnce });
  }

  /** Makes a machine known under its key. Nothing boots until a call wants it. */
  define(key: string, boot: Boot, options: MachineOptions = {}): void {
    const settled = Promise.withResolvers<void>();
    const abort = new AbortController();
    this.#slots.set(key, { ...options, key, state: ABSENT, boot, waiters: [], awake: [], settled, abort });
  }

  has(key: string): boolean {
    return this.#slots.has(key);
  }

  /** Takes over a hibernated machine, of one that has not been used yet. */
  adopt(key: string, machine: RunningMachine): void {
    const slot = this.#slots.get(key);
    if (slot?.state.name !== 'absent') throw new TypeError(`Machine "${key}" is in use.`);
    slot.state = asleepSince(this.#now());
    this.#operations.watch(slot, machine);
    this.#schedule(slot);
  }

  /**
   * Ends a machine, whatever it is at, and forgets it. Calls that wait are refused, and so are those that come before `clear`,
   * which is called when nothing of it runs, has resolved. An unknown one is gone already.
   */
  async remove(key: string, clear: () => Promise<void> = async () => undefined): Promise<void> {
    const slot = this.#slots.get(key);
    if (!slot) {
      await clear();
      return;
    }
    slot.removing ??= this.#remove(slot, clear);
    await slot.removing;
  }

  async #remove(slot: Slot, clear: () => Promise<void>): Promise<void> {
    this.#memory.withdraw(slot, `Machine "${slot.key}" is being removed. Try again.`);
    slot.abort.abort();
    slot.machine?.kill();
    if (slot.machine || !AT_REST.has(slot.state.name)) await slot.settled.promise;
    clearTimeout(slot.timer);
    try {
      await clear();
    } finally {
      this.#slots.delete(slot.key);
    }
  }

  /** The states of all machines, for people. */
  states(): Seen[] {
    const now = this.#now();
    return [...this.#slots].map(([key, { state }]) => {
      const loop = loopOf(state, now);
      return { key, state: state.name, ...(loop ? { crashLoop: tellLoop(loop, now) } : {}) };
    });
  }

  /**
   * The machine of `key`, running: booted or woken when it must be.
   * @throws MoorageError `route_stale` (no such machine), `machine_failed` (with `data.retryAfterMs`), `overloaded`.
   */
  lease(key: string): Promise<Lease> {
    const slot = this.#slots.get(key);
    if (!slot) return Promise.reject(new MoorageError('route_stale', `This origin has no machine "${key}".`));
    if (this.#closed)
      return Promise.reject(new MoorageError('machine_failed', 'This origin is shutting down. Try again.'));
    if (slot.removing)
      return Promise.reject(new MoorageError('machine_failed', `Machine "${key}" is being removed. Try again.`));
    if (slot.waiters.length >= MAX_WAITING) {
      return Promise.reject(
        new MoorageError('overloaded', `Too many calls wait for machine "${key}". Try again in a moment.`),
      );
    }
    if (this.#memory.needsPlace(slot) && this.#memory.isOverrun(slot)) {
      return Promise.reject(this.#memory.refusal(slot));
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = { resolve, reject };
      slot.waiters.push(waiter);
      if (this.#memory.needsPlace(slot)) this.#memory.claim(slot, waiter);
      else this.#send(slot, { type: 'want' });
    });
  }

  /** A lease of `machine` at once, where it is running. */
  leaseNow(key: string, machine: RunningMachine): Lease | undefined {
    const slot = this.#slots.get(key);
    const name = slot?.state.name;
    if (!slot || (name !== 'running' && name !== 'forking') || slot.machine !== machine) return undefined;
    if (slot.waiters.length > 0) return undefined;
    this.#send(slot, { type: 'want' });
    return this.#leaseOf(slot, machine);
  }

  /**
   * Has `copy` copy a machine, which is booted or woken when it must be and goes on being used. `isIdle` says that nobody
   * uses it now. One copy after another. @throws MoorageError as `lease`, and what `copy` throws.
   */
  async fork<T>(key: string, copy: (machine: RunningMachine, isIdle: boolean) => Promise<T>): Promise<T> {
    const lease = await this.lease(key);
    try {
      const slot = this.#slots.get(key);
      while (slot?.forking) await slot.forking;
      if (slot?.state.name !== 'running' || slot.machine !== lease.machine) {
        throw new MoorageError('machine_failed', `Machine "${key}" ended before it was copied. Try again.`);
      }
      return await this.#fork(slot, lease.machine, copy);
    } finally {
      lease.release();
    }
  }

  async #fork<T>(slot: Slot, machine: RunningMachine, copy: (machine: RunningMachine, isIdle: boolean) => Promise<T>) {
    const isIdle = slot.state.name === 'running' && slot.state.leases === 1;
    const over = Promise.withResolvers<void>();
    slot.forking = over.promise;
    this.#send(slot, { type: 'fork' });
    try {
      return await copy(machine, isIdle);
    } finally {
      delete slot.forking;
      over.resolve();
      if (slot.machine === machine) this.#send(slot, { type: 'forked' });
    }
  }

  /** Calls `act` once when the machine runs the next time; never, when it is not used again. */
  whenAwake(key: string, act: () => void): void {
    this.#slots.get(key)?.awake.push(act);
  }

  /** Puts every machine away in order: hibernated where it can be, else stopped. Resolves when all are. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(
      [...this.#slots.values()].map(async (slot) => {
        this.#memory.withdraw(slot, 'This origin is shutting down. Try again.');
        this.#send(slot, { type: 'stop' });
        slot.abort.abort();
        if (!AT_REST.has(slot.state.name)) await slot.settled.promise;
        await slot.machine?.sleep?.standby?.end();
        clearTimeout(slot.timer);
      }),
    );
  }

  #leaseOf(slot: Slot, machine: RunningMachine): Lease {
    let held = true;
    return {
      machine,
      release: (useful = false) => {
        if (held && slot.machine === machine) this.#send(slot, { type: 'release', useful });
        held = false;
      },
    };
  }

  #send(slot: Slot, event: MachineEvent): void {
    const { state, effects } = step(slot.state, event, this.#now(), slot.sleeps);
    const isOther = state.name !== slot.state.name;
    if (isOther) this.#log.debug(`machine ${slot.key}: ${slot.state.name} -> ${state.name}`);
    slot.state = state;
    for (const effect of effects) this.#act(slot, effect);
    this.#schedule(slot);
    if (this.#memory.isWanted) this.#memory.place();
    if (isOther) this.#memory.standBy(slot, this.#closed);
    if (this.#closed && AT_REST.has(slot.state.name)) slot.settled.resolve();
    if (slot.removing && !slot.machine && AT_REST.has(slot.state.name)) slot.settled.resolve();
  }

  /** One timer per machine, for the next time at which something may be decided. */
  #schedule(slot: Slot): void {
    clearTimeout(slot.timer);
    const due = dueAt(slot.state, slot.sleeps) - this.#now();
    if (due === Number.POSITIVE_INFINITY || this.#closed) return;
    const delay = Math.min(Math.max(0, due), LONGEST_TIMER_MS);
    slot.timer = setTimeout(() => this.#send(slot, { type: 'tick' }), delay).unref();
  }

  #act(slot: Slot, effect: MachineEffect): void {
    switch (effect.type) {
      case 'fork':
        // `#fork` does it: what becomes of the copy is its caller's.
        return;
      case 'ready':
        this.#ready(slot);
        return;
      case 'refuse': {
        const { retryAfterMs, crashes } = effect;
        const loop = crashes === undefined ? {} : { cause: 'crash_loop', crashes };
        const data = retryAfterMs > 0 ? { ...loop, retryAfterMs } : loop;
        for (const waiter of slot.waiters.splice(0)) {
          waiter.reject(
            new MoorageError('machine_failed', `The machine "${slot.key}" cannot run now: ${effect.reason}`, data),
          );
        }
        return;
      }
      case 'report':
        this.#log.warn(`machine ${slot.key} ${effect.text}`);
        return;
      default:
        this.#operations.begin(slot, effect);
    }
  }

  #ready(slot: Slot): void {
    const { machine } = slot;
    if (!machine) throw new TypeError(`Machine "${slot.key}" is ready without being there.`);
    for (const waiter of slot.waiters.splice(0)) waiter.resolve(this.#leaseOf(slot, machine));
    for (const act of slot.awake.splice(0)) act();
  }
}
