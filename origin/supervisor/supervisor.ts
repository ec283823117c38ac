/**
 * Owns the machines of this origin: the one place that acts on what `machine.ts` and `admission.ts` decide.
 *
 * Invariants: one driver call per machine at a time; a machine that was leased may end at any moment and says so through
 * `gone`; it does not sleep before the lease is released; after `close` nothing runs and nothing boots.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';
import type { RunningMachine, Sleepable } from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';
import { place, type Resident } from './admission.ts';
import { tellLoop } from './crash-loop.ts';
import { MAX_WAITING, step } from './machine.ts';
import {
  ABSENT,
  asleepSince,
  dueAt,
  isAwake,
  isLeaving,
  loopOf,
  type MachineEffect,
  type MachineEvent,
  type MachineState,
  type SleepPolicy,
  yieldsSince,
} from './machine-state.ts';
import { standBy } from './standby.ts';

/** How long a call waits for memory, in milliseconds, and when it may try again. */
const PLACE_WAIT_MS = 30_000;
const TRY_AGAIN_MS = 5_000;
/** Machines that wait for memory, at most. */
const MAX_CLAIMS = 1_000;

/** Boots one machine, whatever it is made of. Rejects with a MachineError; aborting `signal` ends a half-booted machine. */
export type Boot = (progress: (step: string) => void, signal: AbortSignal) => Promise<RunningMachine>;

/** The right to a running machine. Whoever gets one must release it; releasing it again does nothing. */
export interface Lease {
  readonly machine: RunningMachine;
  /** `useful`: the machine did something for whoever had it. */
  release(useful?: boolean): void;
}

/** A machine's state, for people. */
export interface Seen {
  readonly key: string;
  readonly state: MachineState['name'];
  /** A sentence without its full stop, for one that is in a crash loop. */
  readonly crashLoop?: string;
}

export interface MachineOptions {
  /** Memory of the host that it takes while it is awake; 0 by default: it needs no place. */
  readonly memoryMiB?: number;
  /** Absent: the machine cannot sleep. */
  readonly sleeps?: SleepPolicy | undefined;
  /** What is kept with the image of a machine that is hibernated. */
  readonly carry?: () => unknown;
}

interface Waiter {
  readonly resolve: (lease: Lease) => void;
  readonly reject: (error: MoorageError) => void;
  /** While its machine waits for memory. */
  timer?: NodeJS.Timeout | undefined;
}

interface Slot extends MachineOptions {
  readonly key: string;
  state: MachineState;
  readonly boot: Boot;
  machine?: RunningMachine;
  waiters: Waiter[];
  /** Called once each when the machine runs (again). */
  awake: (() => void)[];
  timer?: NodeJS.Timeout | undefined;
  /** While it is copied: resolves when that is over. */
  forking?: Promise<void>;
  /** Nobody may use it any more. */
  removing?: boolean;
  /** Resolves when the machine has been put away, or removed. */
  readonly settled: PromiseWithResolvers<void>;
  readonly abort: AbortController;
}

/** Node's timers take no longer delay. */
const LONGEST_TIMER_MS = 0x7fff_ffff;
/** States in which nothing of a machine needs the agent any more. */
const AT_REST: ReadonlySet<string> = new Set(['absent', 'stopped', 'hibernated', 'failed']);

export class Supervisor {
  readonly #slots = new Map<string, Slot>();
  readonly #log: Log;
  readonly #now: () => number;
  readonly #budgetMiB: number;
  /** Sleeping machines for whose wake something waits, at most. */
  readonly #standbys: number;
  /** Machines that wait for memory, in order. */
  readonly #claims = new Map<string, Slot>();
  #placing = false;
  #closed = false;

  /**
   * `memoryMiB` is what machines that are awake may have together; without it every one has a place. `standbys` is for how
   * many sleeping machines something may wait ahead of their wake, default 0.
   */
  constructor(options: {
    log: Log;
    memoryMiB?: number | undefined;
    standbys?: number | undefined;
    now?: () => number;
  }) {
    this.#log = options.log;
    this.#standbys = options.standbys ?? 0;
    this.#budgetMiB = options.memoryMiB ?? Number.POSITIVE_INFINITY;
    this.#now = options.now ?? Date.now;
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
    this.#watch(slot, machine);
    this.#schedule(slot);
  }

  /**
   * Ends a machine, whatever it is at, and forgets it. Calls that wait are refused. Resolves when nothing of it runs; an
   * unknown one is gone already.
   */
  async remove(key: string): Promise<void> {
    const slot = this.#slots.get(key);
    if (!slot) return;
    slot.removing = true;
    this.#withdraw(slot, `Machine "${key}" is being removed. Try again.`);
    slot.abort.abort();
    slot.machine?.kill();
    if (slot.machine || !AT_REST.has(slot.state.name)) await slot.settled.promise;
    clearTimeout(slot.timer);
    this.#slots.delete(key);
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
    if (!this.#claims.has(key) && this.#needsPlace(slot) && this.#claims.size >= MAX_CLAIMS) {
      return Promise.reject(this.#noPlace(slot));
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = { resolve, reject };
      slot.waiters.push(waiter);
      if (this.#needsPlace(slot)) this.#claim(slot, waiter);
      else this.#send(slot, { type: 'want' });
    });
  }

  /** Whether it takes memory when it is wanted. One that failed is refused without any. */
  #needsPlace({ state, memoryMiB = 0 }: Slot): boolean {
    return memoryMiB > 0 && !isAwake(state) && !(state.name === 'failed' && this.#now() < state.until);
  }

  #claim(slot: Slot, waiter: Waiter): void {
    waiter.timer = setTimeout(() => {
      slot.waiters = slot.waiters.filter((other) => other !== waiter);
      if (slot.waiters.length === 0) {
        this.#claims.delete(slot.key);
        this.#log.warn(`machine ${slot.key}: no memory for it in ${PLACE_WAIT_MS / 1000} s, the others are in use`);
      }
      waiter.reject(this.#noPlace(slot));
      this.#place();
    }, PLACE_WAIT_MS).unref();
    this.#claims.set(slot.key, slot);
    this.#place();
  }

  #noPlace({ key }: Slot): MoorageError {
    return new MoorageError(
      'overloaded',
      `All the memory that this origin has for machines is in use, so "${key}" could not be woken. Try again in ${TRY_AGAIN_MS / 1000} s.`,
      { retryAfterMs: TRY_AGAIN_MS },
    );
  }

  /** Gives memory to the machines that wait for it, and has others give up theirs. */
  #place(): void {
    if (this.#placing) return;
    this.#placing = true;
    for (let again = true; again && this.#claims.size > 0; ) {
      const claims = [...this.#claims.values()].map(({ key, memoryMiB = 0 }) => ({ key, memoryMiB }));
      const verdict = place(claims, this.#residents(), this.#budgetMiB);
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
    for (let count = waiters.length; count > 0; count -= 1) this.#send(slot, { type: 'want' });
  }

  #tell(key: string, event: MachineEvent): void {
    const slot = this.#slots.get(key);
    if (slot) this.#send(slot, event);
  }

  #residents(): Resident[] {
    return [...this.#slots.values()].flatMap(({ key, state, sleeps, memoryMiB = 0 }) =>
      memoryMiB === 0 || !isAwake(state)
        ? []
        : [{ key, memoryMiB, idleSince: yieldsSince(state, this.#now(), sleeps), leaving: isLeaving(state) }],
    );
  }

  /**
   * Has something wait for the machines that are likely to wake next, after `changed` came to another state. A wake is not
   * to wait for the start of another's: that is done when one has fallen asleep.
   */
  #standBy(changed: Slot): void {
    if (this.#standbys === 0) return;
    const sleepers = [...this.#slots.values()].flatMap(({ key, state, machine, removing }) => {
      const standby = machine?.sleep?.standby;
      if (state.name !== 'hibernated' || standby === undefined || removing) return [];
      const { waits, memoryMiB } = standby;
      return [{ key, idleSince: state.idleSince, waits, memoryMiB }];
    });
    const taken = this.#residents().reduce((sum, { memoryMiB }) => sum + memoryMiB, 0);
    // Whoever waits for memory comes first.
    const freeMiB = this.#claims.size > 0 || this.#closed ? 0 : this.#budgetMiB - taken;
    const { start, end } = standBy(sleepers, this.#standbys, freeMiB);
    for (const key of end) void this.#slots.get(key)?.machine?.sleep?.standby?.end();
    if (changed.state.name !== 'hibernated') return;
    for (const key of start) this.#slots.get(key)?.machine?.sleep?.standby?.start();
  }

  /** Those who wait for memory will not get any. */
  #withdraw(slot: Slot, why: string): void {
    if (!this.#claims.delete(slot.key)) return;
    for (const waiter of slot.waiters.splice(0)) {
      clearTimeout(waiter.timer);
      waiter.reject(new MoorageError('machine_failed', why));
    }
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
        this.#withdraw(slot, 'This origin is shutting down. Try again.');
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
    if (this.#claims.size > 0) this.#place();
    if (isOther) this.#standBy(slot);
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
      case 'boot':
        void this.#boot(slot);
        return;
      case 'stop':
        void slot.machine?.stop();
        return;
      case 'fork':
        // `#fork` does it: what becomes of the copy is its caller's.
        return;
      case 'pause':
        this.#sleep(slot, async (machine) => {
          const heldMs = await machine.pause(effect.force);
          return heldMs === 0 ? { type: 'paused' } : { type: 'held', forMs: heldMs };
        });
        return;
      case 'resume':
        this.#sleep(slot, async (machine) => {
          await machine.resume();
          return { type: 'resumed' };
        });
        return;
      case 'hibernate':
        this.#sleep(slot, (machine) => this.#hibernate(slot, machine));
        return;
      case 'wake':
        this.#sleep(slot, (machine) => this.#wake(slot, machine));
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
    }
  }

  #ready(slot: Slot): void {
    const { machine } = slot;
    if (!machine) throw new TypeError(`Machine "${slot.key}" is ready without being there.`);
    for (const waiter of slot.waiters.splice(0)) waiter.resolve(this.#leaseOf(slot, machine));
    for (const act of slot.awake.splice(0)) act();
  }

  /** Runs one operation and tells what became of it. A machine that did not survive it says so through `gone`. */
  #sleep(slot: Slot, act: (machine: Sleepable) => Promise<MachineEvent | undefined>): void {
    const sleep = slot.machine?.sleep;
    if (!sleep) throw new TypeError(`Machine "${slot.key}" cannot sleep.`);
    act(sleep).then(
      (event) => event && this.#send(slot, event),
      (error: unknown) => this.#log.warn(`machine ${slot.key}: ${messageOf(error)}`),
    );
  }

  async #hibernate(slot: Slot, machine: Sleepable): Promise<MachineEvent | undefined> {
    const began = performance.now();
    try {
      const { bytes } = await machine.hibernate(slot.carry?.());
      const took = (performance.now() - began).toFixed(0);
      this.#log.info(`machine ${slot.key}: hibernated in ${took} ms, ${(bytes / 1e6).toFixed(1)} MB written`);
      return { type: 'hibernated' };
    } catch (error) {
      return { type: 'hibernate-failed', reason: messageOf(error) };
    }
  }

  async #wake(slot: Slot, machine: Sleepable): Promise<MachineEvent | undefined> {
    const began = performance.now();
    try {
      await machine.wake();
      this.#log.info(`machine ${slot.key}: woken in ${(performance.now() - began).toFixed(0)} ms`);
      return { type: 'woken' };
    } catch (error) {
      return { type: 'wake-failed', reason: messageOf(error) };
    }
  }

  async #boot(slot: Slot): Promise<void> {
    const { key } = slot;
    const began = this.#now();
    let machine: RunningMachine;
    try {
      machine = await slot.boot((text) => this.#log.info(`machine ${key}: ${text}`), slot.abort.signal);
    } catch (error) {
      if (error instanceof MachineError) {
        this.#log.warn(`machine ${key}: ${error.message}${error.detail ? `\n${error.detail}` : ''}`);
        // Its message may hold a path of this host: callers get the code, the owner has the log.
        this.#send(slot, {
          type: 'boot-failed',
          reason: `${error.code}. Its owner finds the reason in the origin's log.`,
        });
      } else {
        this.#log.error(`machine ${key}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
        this.#send(slot, {
          type: 'boot-failed',
          reason: "an unexpected error. Its owner finds it in the origin's log.",
        });
      }
      return;
    }
    if (slot.removing) {
      // It was up before it heard of that.
      machine.kill();
      await machine.gone;
      this.#send(slot, { type: 'boot-failed', reason: 'It is being removed.' });
      return;
    }
    this.#watch(slot, machine);
    this.#log.info(`machine ${key}: running after ${((this.#now() - began) / 1000).toFixed(1)} s`);
    this.#send(slot, { type: 'booted' });
  }

  #watch(slot: Slot, machine: RunningMachine): void {
    slot.machine = machine;
    void machine.gone.then((end) => {
      if (slot.machine !== machine) return;
      delete slot.machine;
      if (slot.state.name !== 'stopping' && end.consoleTail)
        this.#log.warn(`machine ${slot.key}: last console lines:\n${end.consoleTail}`);
      this.#send(slot, { type: 'gone', reason: end.reason });
    });
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
