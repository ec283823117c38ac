/**
 * Owns the machines of this origin: the one place that acts on what `machine.ts` decides.
 *
 * Invariants: one driver call per machine at a time; a `RunningMachine` handed out by `ensure` may end at any moment and
 * says so through `gone`; after `close` nothing runs and nothing boots.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';
import type { RunningMachine } from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';
import { ABSENT, MAX_WAITING, type MachineEffect, type MachineEvent, type MachineState, step } from './machine.ts';

/** Boots one machine, whatever it is made of. Rejects with a MachineError; aborting `signal` ends a half-booted machine. */
export type Boot = (progress: (step: string) => void, signal: AbortSignal) => Promise<RunningMachine>;

interface Slot {
  state: MachineState;
  readonly boot: Boot;
  running?: RunningMachine;
  waiters: { resolve: (machine: RunningMachine) => void; reject: (error: MoorageError) => void }[];
  readonly abort: AbortController;
}

export class Supervisor {
  readonly #slots = new Map<string, Slot>();
  readonly #log: Log;
  readonly #now: () => number;
  #closed = false;

  constructor(options: { log: Log; now?: () => number }) {
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
  }

  /** Makes a machine known under its key. Nothing boots until a call wants it. */
  define(key: string, boot: Boot): void {
    this.#slots.set(key, { state: ABSENT, boot, waiters: [], abort: new AbortController() });
  }

  /** The states of all machines, for people. */
  states(): { key: string; state: MachineState['name'] }[] {
    return [...this.#slots].map(([key, slot]) => ({ key, state: slot.state.name }));
  }

  /**
   * The running machine of `key`, booted when it is not.
   * @throws MoorageError `route_stale` (no such machine), `machine_failed` (with `data.retryAfterMs`), `overloaded`.
   */
  ensure(key: string): Promise<RunningMachine> {
    const slot = this.#slots.get(key);
    if (!slot) return Promise.reject(new MoorageError('route_stale', `This origin has no machine "${key}".`));
    if (this.#closed)
      return Promise.reject(new MoorageError('machine_failed', 'This origin is shutting down. Try again.'));
    if (slot.waiters.length >= MAX_WAITING) {
      return Promise.reject(
        new MoorageError('overloaded', `Too many calls wait for machine "${key}". Try again in a moment.`),
      );
    }
    return new Promise((resolve, reject) => {
      slot.waiters.push({ resolve, reject });
      this.#send(key, slot, { type: 'want' });
    });
  }

  /** Stops every machine in order (disks synced and unmounted). Resolves when all are gone. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(
      [...this.#slots].map(async ([key, slot]) => {
        const machine = slot.running;
        this.#send(key, slot, { type: 'stop' });
        slot.abort.abort();
        await machine?.gone;
      }),
    );
  }

  #send(key: string, slot: Slot, event: MachineEvent): void {
    const { state, effects } = step(slot.state, event, this.#now());
    if (state.name !== slot.state.name) this.#log.debug(`machine ${key}: ${slot.state.name} -> ${state.name}`);
    slot.state = state;
    for (const effect of effects) this.#act(key, slot, effect);
  }

  #act(key: string, slot: Slot, effect: MachineEffect): void {
    switch (effect.type) {
      case 'boot':
        void this.#boot(key, slot);
        return;
      case 'stop':
        void slot.running?.stop();
        return;
      case 'ready':
        for (const waiter of slot.waiters.splice(0)) {
          if (slot.running) waiter.resolve(slot.running);
        }
        return;
      case 'refuse': {
        const data = effect.retryAfterMs > 0 ? { retryAfterMs: effect.retryAfterMs } : {};
        for (const waiter of slot.waiters.splice(0)) {
          waiter.reject(
            new MoorageError('machine_failed', `The machine "${key}" cannot run now: ${effect.reason}`, data),
          );
        }
        return;
      }
      case 'report':
        this.#log.warn(`machine ${key} ${effect.text}`);
        return;
    }
  }

  async #boot(key: string, slot: Slot): Promise<void> {
    const began = this.#now();
    let machine: RunningMachine;
    try {
      machine = await slot.boot((text) => this.#log.info(`machine ${key}: ${text}`), slot.abort.signal);
    } catch (error) {
      if (error instanceof MachineError) {
        this.#log.warn(`machine ${key}: ${error.message}${error.detail ? `\n${error.detail}` : ''}`);
        // Its message may hold a path of this host: callers get the code, the owner has the log.
        this.#send(key, slot, {
          type: 'boot-failed',
          reason: `${error.code}. Its owner finds the reason in the origin's log.`,
        });
      } else {
        this.#log.error(`machine ${key}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
        this.#send(key, slot, {
          type: 'boot-failed',
          reason: "an unexpected error. Its owner finds it in the origin's log.",
        });
      }
      return;
    }
    slot.running = machine;
    void machine.gone.then((end) => {
      if (slot.running === machine) delete slot.running;
      if (slot.state.name !== 'stopping' && end.consoleTail)
        this.#log.warn(`machine ${key}: last console lines:\n${end.consoleTail}`);
      this.#send(key, slot, { type: 'gone', reason: end.reason });
    });
    this.#log.info(`machine ${key}: running after ${((this.#now() - began) / 1000).toFixed(1)} s`);
    this.#send(key, slot, { type: 'booted' });
  }
}
