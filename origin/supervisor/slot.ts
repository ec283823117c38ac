/** What the supervisor knows of one machine: how it boots, what it is at, who waits for it. Only types, and when it is at rest. */
import type { MoorageError } from '../../shared/errors.ts';
import type { RunningMachine } from '../vm/driver.ts';
import type { MachineEvent, MachineState, SleepPolicy } from './machine-state.ts';

/** Boots one machine, whatever it is made of. Rejects with a MachineError; aborting `signal` ends a half-booted machine. */
export type Boot = (progress: (step: string) => void, signal: AbortSignal) => Promise<RunningMachine>;

/** The right to a running machine. Whoever gets one must release it; releasing it again does nothing. */
export interface Lease {
  readonly machine: RunningMachine;
  /** `useful`: the machine did something for whoever had it. */
  release(useful?: boolean): void;
}

export interface MachineOptions {
  /** Memory of the host that it takes while it is awake; 0 by default: it needs no place. */
  readonly memoryMiB?: number;
  /** Absent: the machine cannot sleep. */
  readonly sleeps?: SleepPolicy | undefined;
  /** What is kept with the image of a machine that is hibernated. */
  readonly carry?: () => unknown;
}

export interface Waiter {
  readonly resolve: (lease: Lease) => void;
  readonly reject: (error: MoorageError) => void;
  /** While its machine waits for memory. */
  timer?: NodeJS.Timeout | undefined;
}

export interface Slot extends MachineOptions {
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
  /** Nobody may use it any more; resolves when all of it is gone. */
  removing?: Promise<void>;
  /** Resolves when the machine has been put away, or removed. */
  readonly settled: PromiseWithResolvers<void>;
  readonly abort: AbortController;
}

/** Tells a machine's state machine what has happened, and acts on what follows. */
export type Send = (slot: Slot, event: MachineEvent) => void;

/** States in which nothing of a machine needs the agent any more. */
export const AT_REST: ReadonlySet<string> = new Set(['absent', 'stopped', 'hibernated', 'failed']);
