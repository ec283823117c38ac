/**
 * Owns what a machine may be at, what may happen to it and what may be done about it, and what each state means to others.
 * How one becomes the next is `machine.ts`'s. Pure.
 */
import { type Crashes, isLoop, SOUND_MS } from './crash-loop.ts';

/** When an idle machine goes to sleep, in milliseconds since its last use; Infinity for never. */
export interface SleepPolicy {
  readonly pauseAfterMs: number;
  readonly hibernateAfterMs: number;
  readonly stopAfterMs: number;
}

/** What is known of the lives before: those that ended by themselves. */
export interface Remembers {
  readonly crashes?: Crashes | undefined;
}

/** A life, from its boot or its wake on. */
export interface Life extends Remembers {
  /** Milliseconds. */
  readonly since: number;
  readonly wasOfUse: boolean;
}

export interface Alive {
  readonly life: Life;
  /** Since when nobody has used it, in milliseconds. */
  readonly idleSince: number;
}

/** `stopping` remembers that the machine is to be put away as soon as what is under way has ended. */
export interface UnderWay {
  readonly waiting: number;
  readonly stopping: boolean;
}

export type MachineState =
  | ({ readonly name: 'absent' | 'stopped' } & Remembers)
  | ({ readonly name: 'booting'; readonly failures: number } & Remembers & UnderWay)
  /** `awakeUntil` is set when somebody inside the machine, or a failed attempt, asks to leave it awake. */
  | ({ readonly name: 'running'; readonly leases: number; readonly awakeUntil: number } & Alive)
  | ({ readonly name: 'forking'; readonly leases: number; readonly stopping: boolean } & Alive)
  /** `yielding`: it does not stay paused. */
  | ({ readonly name: 'pausing'; readonly yielding: boolean } & Alive & UnderWay)
  /** `stayUntil` is set when it could not be hibernated. */
  | ({ readonly name: 'paused'; readonly stayUntil: number } & Alive)
  | ({ readonly name: 'resuming' } & Alive & UnderWay)
  | ({ readonly name: 'hibernating' } & Alive & UnderWay)
  | { readonly name: 'hibernated'; readonly idleSince: number }
  | ({ readonly name: 'waking' } & UnderWay)
  /** `waiting` calls came while it was stopping: it boots again at once. */
  | { readonly name: 'stopping'; readonly waiting: number }
  /** `until` is when the next try may begin, in milliseconds. Without failures it is in a crash loop. */
  | ({
      readonly name: 'failed';
      readonly failures: number;
      readonly until: number;
      readonly reason: string;
    } & Remembers);

export type MachineEvent =
  /** A call needs the machine. */
  | { readonly type: 'want' }
  /** A call is over; `useful` when the machine did something for it. */
  | { readonly type: 'release'; readonly useful?: boolean }
  /** Time has passed: see `dueAt`. */
  | { readonly type: 'tick' }
  | { readonly type: 'booted' }
  | { readonly type: 'boot-failed'; readonly reason: string }
  | { readonly type: 'paused' }
  /** It was not paused: somebody inside asks to stay awake for `forMs`. */
  | { readonly type: 'held'; readonly forMs: number }
  | { readonly type: 'resumed' }
  | { readonly type: 'hibernated' }
  /** It is paused as before. */
  | { readonly type: 'hibernate-failed'; readonly reason: string }
  | { readonly type: 'woken' }
  /** What it had in memory is lost; its disk is free. */
  | { readonly type: 'wake-failed'; readonly reason: string }
  /** Copy it. Only who holds a lease asks for this. */
  | { readonly type: 'fork' }
  /** It was copied, or could not be. */
  | { readonly type: 'forked' }
  /** The machine ended, asked or not. */
  | { readonly type: 'gone'; readonly reason: string }
  /** Others need its memory: unless somebody uses it, it goes to the disk. */
  | { readonly type: 'yield' }
  /** Put it away: its owner is leaving. */
  | { readonly type: 'stop' };

/** What the driver is to do. */
export type MachineOperation =
  | { readonly type: 'boot' | 'resume' | 'hibernate' | 'wake' | 'stop' }
  /** With `force` nobody inside is asked. */
  | { readonly type: 'pause'; readonly force: boolean };

export type MachineEffect =
  | MachineOperation
  /** Who asked for it may copy the machine. */
  | { readonly type: 'fork' }
  /** Everyone who waits may use the machine, and has a lease. */
  | { readonly type: 'ready' }
  /** Everyone who waits is told why not. `retryAfterMs` is when a new try makes sense; `crashes` is set in a crash loop. */
  | { readonly type: 'refuse'; readonly reason: string; readonly retryAfterMs: number; readonly crashes?: number }
  /** The owner should read this. */
  | { readonly type: 'report'; readonly text: string };

export interface Step {
  readonly state: MachineState;
  readonly effects: readonly MachineEffect[];
}

/** How a machine may sleep; absent for one that cannot. */
export type Sleeps = SleepPolicy | undefined;

export const ABSENT: MachineState = { name: 'absent' };

/** A machine that another life of the agent hibernated. */
export const asleepSince = (now: number): MachineState => ({ name: 'hibernated', idleSince: now });

/** When the next `tick` is due, in milliseconds; Infinity for never. */
export function dueAt(state: MachineState, sleeps: Sleeps): number {
  if (sleeps === undefined) return Number.POSITIVE_INFINITY;
  const { pauseAfterMs, hibernateAfterMs, stopAfterMs } = sleeps;
  switch (state.name) {
    case 'running': {
      if (state.leases > 0) return Number.POSITIVE_INFINITY;
      const after = Math.min(pauseAfterMs, hibernateAfterMs, stopAfterMs);
      return Math.max(state.idleSince + after, state.awakeUntil);
    }
    case 'paused':
      return Math.min(Math.max(state.idleSince + hibernateAfterMs, state.stayUntil), state.idleSince + stopAfterMs);
    case 'hibernated':
      return state.idleSince + stopAfterMs;
    default:
      return Number.POSITIVE_INFINITY;
  }
}

/** Whether it has memory of the host. */
export function isAwake(state: MachineState): boolean {
  return !['absent', 'stopped', 'hibernated', 'failed'].includes(state.name);
}

/** Since when nobody has used it, for one that would give up its memory if it were told to `yield`; else undefined. */
export function yieldsSince(state: MachineState, now: number, sleeps: Sleeps): number | undefined {
  if (sleeps === undefined || sleeps.pauseAfterMs === Number.POSITIVE_INFINITY) return undefined;
  if (state.name === 'running') return state.leases === 0 && state.awakeUntil <= now ? state.idleSince : undefined;
  return state.name === 'paused' && state.stayUntil <= now ? state.idleSince : undefined;
}

/** The crash loop that it is in; undefined for one that has been sound since. `now` is in milliseconds. */
export function loopOf(state: MachineState, now: number): Crashes | undefined {
  const life = 'life' in state ? state.life : undefined;
  if (life && (life.wasOfUse || now - life.since >= SOUND_MS)) return undefined;
  const crashes = life ? life.crashes : 'crashes' in state ? state.crashes : undefined;
  return isLoop(crashes) ? crashes : undefined;
}

/** Whether it gives up its memory, if nobody calls it meanwhile. */
export function isLeaving(state: MachineState): boolean {
  if (state.name === 'pausing') return state.yielding && state.waiting === 0;
  return (state.name === 'hibernating' || state.name === 'stopping') && state.waiting === 0;
}
