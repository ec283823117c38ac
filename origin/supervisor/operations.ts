/**
 * Owns what is done to machines through their driver: one operation at a time for each, of which the machine's state machine is
 * told how it ended.
 */
import { availableParallelism } from 'node:os';
import type { Log } from '../log.ts';
import type { RunningMachine, Sleepable } from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';
import type { MachineEvent, MachineOperation } from './machine-state.ts';
import type { Send, Slot } from './slot.ts';
import { Turns } from './turns.ts';

/** Machines that are woken at the same time: more would share the processors, and all of them be late. */
const WAKES_AT_ONCE = Math.max(2, availableParallelism());

export class Operations {
  readonly #options: { readonly send: Send; readonly log: Log; readonly now: () => number };
  readonly #wakes: Turns;

  constructor(options: { send: Send; log: Log; now: () => number; wakesAtOnce?: number | undefined }) {
    this.#options = options;
    this.#wakes = new Turns(options.wakesAtOnce ?? WAKES_AT_ONCE);
  }

  begin(slot: Slot, operation: MachineOperation): void {
    switch (operation.type) {
      case 'boot':
        void this.#boot(slot);
        return;
      case 'stop':
        void slot.machine?.stop();
        return;
      case 'pause':
        this.#sleep(slot, async (machine) => {
          const heldMs = await machine.pause(operation.force);
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
        this.#sleep(slot, (machine) =>
          // One that ended while it waited has begun another life by then.
          this.#wakes.take(async () => (slot.machine?.sleep === machine ? this.#wake(slot, machine) : undefined)),
        );
        return;
    }
  }

  async #boot(slot: Slot): Promise<void> {
    const { key } = slot;
    const began = this.#options.now();
    let machine: RunningMachine;
    try {
      machine = await slot.boot((text) => this.#options.log.info(`machine ${key}: ${text}`), slot.abort.signal);
    } catch (error) {
      if (error instanceof MachineError) {
        this.#options.log.warn(`machine ${key}: ${error.message}${error.detail ? `\n${error.detail}` : ''}`);
        // Its message may hold a path of this host: callers get the code, the owner has the log.
        this.#options.send(slot, {
          type: 'boot-failed',
          reason: `${error.code}. Its owner finds the reason in the origin's log.`,
        });
      } else {
        this.#options.log.error(
          `machine ${key}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
        );
        this.#options.send(slot, {
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
      this.#options.send(slot, { type: 'boot-failed', reason: 'It is being removed.' });
      return;
    }
    this.watch(slot, machine);
    this.#options.log.info(`machine ${key}: running after ${((this.#options.now() - began) / 1000).toFixed(1)} s`);
    this.#options.send(slot, { type: 'booted' });
  }

  /** Hears of its end. */
  watch(slot: Slot, machine: RunningMachine): void {
    slot.machine = machine;
    void machine.gone.then((end) => {
      if (slot.machine !== machine) return;
      delete slot.machine;
      if (slot.state.name !== 'stopping' && end.consoleTail)
        this.#options.log.warn(`machine ${slot.key}: last console lines:\n${end.consoleTail}`);
      this.#options.send(slot, { type: 'gone', reason: end.reason });
    });
  }

  /** Runs one operation and tells what became of it. A machine that did not survive it says so through `gone`. */
  #sleep(slot: Slot, act: (machine: Sleepable) => Promise<MachineEvent | undefined>): void {
    const sleep = slot.machine?.sleep;
    if (!sleep) throw new TypeError(`Machine "${slot.key}" cannot sleep.`);
    act(sleep).then(
      (event) => event && this.#options.send(slot, event),
      (error: unknown) => this.#options.log.warn(`machine ${slot.key}: ${messageOf(error)}`),
    );
  }

  async #hibernate(slot: Slot, machine: Sleepable): Promise<MachineEvent | undefined> {
    const began = performance.now();
    try {
      const { bytes } = await machine.hibernate(slot.carry?.());
      const took = (performance.now() - began).toFixed(0);
      this.#options.log.info(`machine ${slot.key}: hibernated in ${took} ms, ${(bytes / 1e6).toFixed(1)} MB written`);
      return { type: 'hibernated' };
    } catch (error) {
      return { type: 'hibernate-failed', reason: messageOf(error) };
    }
  }

  async #wake(slot: Slot, machine: Sleepable): Promise<MachineEvent | undefined> {
    const began = performance.now();
    try {
      await machine.wake();
      this.#options.log.info(`machine ${slot.key}: woken in ${(performance.now() - began).toFixed(0)} ms`);
      return { type: 'woken' };
    } catch (error) {
      return { type: 'wake-failed', reason: messageOf(error) };
    }
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
