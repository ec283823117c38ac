/**
 * Owns the life of one machine as a pure state machine: `(state, event) -> (state, effects)`. No clock, no I/O.
 *
 * ```
 * absent, stopped ──want──▶ booting ──booted──▶ running ──idle──▶ pausing ──paused──▶ paused ──idle──▶ hibernating
 *                              │                  ▲  ▲               │ held             │ want             │ hibernated
 *                         boot-failed             │  └───────────────┘                  ▼                  ▼
 *                              ▼                  ├──────────resumed────────────── resuming           hibernated
 *                            failed               └──────────woken─────── waking ◀──────want────────────── ┘
 *
 * waking ──wake-failed──▶ booting (cold, reported)     any ──gone──▶ stopped, or booting when calls wait
 * hibernated ──idle──▶ stopping                        running ──fork──▶ forking ──forked──▶ running
 *                                                      any ──stop──▶ hibernated where it can sleep, else stopping ▶ stopped
 * running, paused ──yield──▶ hibernated by the same steps, at once
 * ```
 * A *lease* keeps the machine running: every call that is answered with `ready` holds one until its `release`. Leases exist
 * in `running` and `forking` alone; sleep begins only without any. While it is copied (`forking`) a machine is used as ever,
 * but for a blink, and does nothing else.
 *
 * A machine that keeps ending by itself soon after it came up, before it was of use, is in a crash loop (`crash-loop.ts`): it is
 * `failed` until the pause of the last crash is over, and calls that wait for it are refused. Sleeping in order ends the loop.
 *
 * Invariants: at most one of the effects `boot`, `pause`, `resume`, `hibernate`, `wake`, `fork`, `stop` is unanswered at any time, so
 * a disk never has two machines; every `want` is answered by exactly one `ready` or `refuse` effect (all waiting ones at
 * once, in order); a call that arrives while the machine falls asleep waits and wakes it.
 */

import { type Crashes, crashed, isLoop, SOUND_MS, tellLoop, waitOf } from './crash-loop.ts';

/** When an idle machine goes to sleep, in milliseconds since its last use; Infinity for never. */
export interface SleepPolicy {
  readonly pauseAfterMs: number;
  readonly hibernateAfterMs: number;
  readonly stopAfterMs: number;
}

/** What is known of the lives before: those that ended by themselves. */
interface Remembers {
  readonly crashes?: Crashes | undefined;
}

/** A life, from its boot or its wake on. */
interface Life extends Remembers {
  /** Milliseconds. */
  readonly since: number;
  readonly wasOfUse: boolean;
}

interface Alive {
  readonly life: Life;
  /** Since when nobody has used it, in milliseconds. */
  readonly idleSince: number;
}

/** `stopping` remembers that the machine is to be put away as soon as what is under way has ended. */
interface UnderWay {
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

export type MachineEffect =
  | { readonly type: 'boot' | 'resume' | 'hibernate' | 'wake' | 'fork' | 'stop' }
  /** With `force` nobody inside is asked. */
  | { readonly type: 'pause'; readonly force: boolean }
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

/** Calls that wait for one machine, at most: more are refused at once (a queue without bound helps nobody). */
export const MAX_WAITING = 2_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;
/** After a failed hibernation the next try waits this long, in milliseconds. */
const HIBERNATE_AGAIN_MS = 600_000;

export const ABSENT: MachineState = { name: 'absent' };

/** A machine that another life of the agent hibernated. */
export const asleepSince = (now: number): MachineState => ({ name: 'hibernated', idleSince: now });

/** The pause before the next boot after `failures` failed ones in a row, in milliseconds. */
export function pauseAfter(failures: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, failures - 1));
}

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

/** One step. `now` is in milliseconds. */
export function step(state: MachineState, event: MachineEvent, now: number, sleeps?: Sleeps): Step {
  switch (event.type) {
    case 'want':
      return want(state, now);
    case 'release':
      return release(state, event.useful ?? false, now);
    case 'tick':
      return now >= dueAt(state, sleeps) ? idle(state, now, sleeps) : stay(state);
    case 'yield':
      return yieldMemory(state, now, sleeps);
    case 'stop':
      return stop(state, sleeps);
    case 'fork':
      return fork(state);
    case 'forked':
      return state.name === 'forking' ? forked(state, sleeps) : stay(state);
    case 'gone':
      return gone(state, event.reason, now);
    case 'booted':
      return state.name === 'booting' ? up(state, newLife(now, state), now, sleeps) : stay(state);
    case 'resumed':
      return state.name === 'resuming' ? up(state, state.life, now, sleeps) : stay(state);
    case 'woken':
      return state.name === 'waking' ? up(state, newLife(now), now, sleeps) : stay(state);
    case 'boot-failed':
      return state.name === 'booting' ? bootFailed(state, event.reason, now) : stay(state);
    case 'paused':
      return state.name === 'pausing' ? paused(state) : stay(state);
    case 'held':
      return state.name === 'pausing' ? held(state, now, now + event.forMs) : stay(state);
    case 'hibernated':
      return state.name === 'hibernating' ? hibernated(state) : stay(state);
    case 'hibernate-failed':
      return state.name === 'hibernating' ? hibernateFailed(state, event.reason, now) : stay(state);
    case 'wake-failed':
      return state.name === 'waking' ? notWoken(state, event.reason) : stay(state);
  }
}

function want(state: MachineState, now: number): Step {
  switch (state.name) {
    case 'absent':
    case 'stopped':
      return begin({ ...booting(1), crashes: state.crashes }, 'boot');
    case 'failed':
      if (now < state.until) return { state, effects: [refusal(state, now)] };
      return begin({ ...booting(1), failures: state.failures, crashes: state.crashes }, 'boot');
    case 'running':
    case 'forking':
      return { state: { ...state, leases: state.leases + 1 }, effects: [{ type: 'ready' }] };
    case 'paused':
      return begin({ ...alive(state), name: 'resuming', waiting: 1, stopping: false }, 'resume');
    case 'hibernated':
      return begin({ name: 'waking', waiting: 1, stopping: false }, 'wake');
    default:
      // The shell refuses the one that is over the bound by itself: those who already wait keep their place.
      return { state: { ...state, waiting: Math.min(MAX_WAITING, state.waiting + 1) }, effects: [] };
  }
}

function release(state: MachineState, useful: boolean, now: number): Step {
  if ((state.name !== 'running' && state.name !== 'forking') || state.leases === 0) return stay(state);
  const life = useful ? { ...state.life, wasOfUse: true } : state.life;
  return { state: { ...state, life, leases: state.leases - 1, idleSince: now }, effects: [] };
}

/** The deepest sleep whose time has come, step by step. */
function idle(state: MachineState, now: number, sleeps: Sleeps): Step {
  switch (state.name) {
    case 'running':
      return {
        state: { ...alive(state), name: 'pausing', yielding: false, waiting: 0, stopping: false },
        effects: [{ type: 'pause', force: false }],
      };
    case 'paused':
      return sleeps !== undefined && now >= state.idleSince + sleeps.stopAfterMs
        ? begin({ name: 'stopping', waiting: 0 }, 'stop')
        : begin({ ...alive(state), name: 'hibernating', waiting: 0, stopping: false }, 'hibernate');
    case 'hibernated':
      return begin({ name: 'stopping', waiting: 0 }, 'stop');
    default:
      return stay(state);
  }
}

function yieldMemory(state: MachineState, now: number, sleeps: Sleeps): Step {
  if (state.name === 'pausing') return stay({ ...state, yielding: true });
  if (state.name !== 'running' && state.name !== 'paused') return stay(state);
  if (yieldsSince(state, now, sleeps) === undefined) return stay(state);
  return state.name === 'running'
    ? {
        state: { ...alive(state), name: 'pausing', yielding: true, waiting: 0, stopping: false },
        effects: [{ type: 'pause', force: false }],
      }
    : begin({ ...alive(state), name: 'hibernating', waiting: 0, stopping: false }, 'hibernate');
}

/** It runs: everyone who waited has a lease, unless it is to be put away. */
function up(state: UnderWay, life: Life, now: number, sleeps: Sleeps): Step {
  if (state.stopping) {
    const away = putAway({ life, idleSince: now }, sleeps);
    return { state: away.state, effects: [...refused(state), ...away.effects] };
  }
  const effects: MachineEffect[] = state.waiting > 0 ? [{ type: 'ready' }] : [];
  return { state: { name: 'running', life, leases: state.waiting, idleSince: now, awakeUntil: 0 }, effects };
}

/** Whoever asks while it is being copied already asks again afterwards. */
function fork(state: MachineState): Step {
  if (state.name !== 'running') return stay(state);
  const { leases } = state;
  return { state: { ...alive(state), name: 'forking', leases, stopping: false }, effects: [{ type: 'fork' }] };
}

function forked(state: MachineState & { name: 'forking' }, sleeps: Sleeps): Step {
  if (state.stopping) return putAway(state, sleeps);
  return { state: { ...alive(state), name: 'running', leases: state.leases, awakeUntil: 0 }, effects: [] };
}

function putAway(state: Alive, sleeps: Sleeps): Step {
  if (sleeps === undefined) return begin({ name: 'stopping', waiting: 0 }, 'stop');
  return {
    state: { ...alive(state), name: 'pausing', yielding: false, waiting: 0, stopping: true },
    effects: [{ type: 'pause', force: true }],
  };
}

function paused(state: MachineState & { name: 'pausing' }): Step {
  const { yielding, waiting, stopping } = state;
  if (stopping) {
    const next = begin({ ...alive(state), name: 'hibernating', waiting: 0, stopping }, 'hibernate');
    return { state: next.state, effects: [...refused(state), ...next.effects] };
  }
  if (waiting > 0) return begin({ ...alive(state), name: 'resuming', waiting, stopping }, 'resume');
  if (yielding) return begin({ ...alive(state), name: 'hibernating', waiting, stopping }, 'hibernate');
  return { state: { ...alive(state), name: 'paused', stayUntil: 0 }, effects: [] };
}

function held(state: MachineState & { name: 'pausing' }, now: number, awakeUntil: number): Step {
  const { life, waiting, stopping } = state;
  if (stopping) return { state, effects: [{ type: 'pause', force: true }] };
  const effects: MachineEffect[] = waiting > 0 ? [{ type: 'ready' }] : [];
  const idleSince = waiting > 0 ? now : state.idleSince;
  return { state: { name: 'running', life, leases: waiting, idleSince, awakeUntil }, effects };
}

function hibernated(state: MachineState & { name: 'hibernating' }): Step {
  const { idleSince, waiting, stopping } = state;
  if (waiting > 0 && !stopping) return begin({ name: 'waking', waiting, stopping }, 'wake');
  return { state: { name: 'hibernated', idleSince }, effects: refused(state) };
}

function hibernateFailed(state: MachineState & { name: 'hibernating' }, reason: string, now: number): Step {
  const { waiting, stopping } = state;
  const told = report(`could not be hibernated: ${reason}`);
  if (stopping) {
    return { state: { name: 'stopping', waiting: 0 }, effects: [...refused(state), told, { type: 'stop' }] };
  }
  if (waiting > 0) {
    return { state: { ...alive(state), name: 'resuming', waiting, stopping }, effects: [told, { type: 'resume' }] };
  }
  return { state: { ...alive(state), name: 'paused', stayUntil: now + HIBERNATE_AGAIN_MS }, effects: [told] };
}

function bootFailed(state: MachineState & { name: 'booting' }, reason: string, now: number): Step {
  const { crashes } = state;
  if (state.stopping) return { state: { name: 'stopped', crashes }, effects: refused(state) };
  const failures = state.failures + 1;
  const pause = pauseAfter(failures);
  return {
    state: { name: 'failed', failures, until: now + pause, reason, crashes },
    effects: [
      { type: 'refuse', reason, retryAfterMs: pause },
      report(`did not boot (${failures} in a row): ${reason}`),
    ],
  };
}

function gone(state: MachineState, reason: string, now: number): Step {
  switch (state.name) {
    case 'running':
    case 'forking':
    case 'paused':
    case 'pausing':
    case 'resuming':
    case 'hibernating':
      return died(state, reason, now);
    case 'hibernated':
      return { state: { name: 'stopped' }, effects: [report(`ended by itself: ${reason}`)] };
    case 'waking':
      return notWoken(state, reason);
    case 'stopping':
      return state.waiting > 0 ? begin(booting(state.waiting), 'boot') : { state: { name: 'stopped' }, effects: [] };
    default:
      return stay(state);
  }
}

/** Its life ended by itself, which counts. Calls that wait get a new one, unless it is in a crash loop. */
function died(state: Alive & Partial<UnderWay>, reason: string, now: number): Step {
  const { life, waiting = 0, stopping = false } = state;
  const end = { livedMs: now - life.since, wasOfUse: life.wasOfUse, how: `ended by itself: ${reason}` };
  const crashes = crashed(life.crashes, end, now);
  const told = report(isLoop(crashes) ? `is in a crash loop: ${tellLoop(crashes, now)}` : end.how);
  if (stopping) return { state: { name: 'stopped' }, effects: [...refused({ waiting, stopping }), told] };
  if (crashes && waitOf(crashes, now) > 0) {
    const failed = { name: 'failed', failures: 0, until: crashes.until, reason: '', crashes } as const;
    return { state: failed, effects: waiting > 0 ? [refusal(failed, now), told] : [told] };
  }
  if (waiting === 0) return { state: { name: 'stopped', crashes }, effects: [told] };
  return { state: { ...booting(waiting), crashes }, effects: [told, { type: 'boot' }] };
}

/** It did not come back from its sleep: calls that wait get a machine that boots. */
function notWoken(state: UnderWay, reason: string): Step {
  const told = report(`could not be woken: ${reason}`);
  if (state.stopping || state.waiting === 0) return { state: { name: 'stopped' }, effects: [...refused(state), told] };
  return { state: booting(state.waiting), effects: [told, { type: 'boot' }] };
}

function stop(state: MachineState, sleeps: Sleeps): Step {
  switch (state.name) {
    case 'running':
      return putAway(state, sleeps);
    case 'paused':
      return sleeps === undefined
        ? begin({ name: 'stopping', waiting: 0 }, 'stop')
        : begin({ ...alive(state), name: 'hibernating', waiting: 0, stopping: true }, 'hibernate');
    case 'booting':
    case 'forking':
    case 'pausing':
    case 'resuming':
    case 'hibernating':
    case 'waking':
      return { state: { ...state, stopping: true }, effects: [] };
    default:
      return stay(state);
  }
}

const alive = ({ life, idleSince }: Alive): Alive => ({ life, idleSince });
const newLife = (now: number, { crashes }: Remembers = {}): Life => ({ since: now, wasOfUse: false, crashes });
const booting = (waiting: number) => ({ name: 'booting', failures: 0, waiting, stopping: false }) as const;
const stay = (state: MachineState): Step => ({ state, effects: [] });
const begin = (state: MachineState, type: 'boot' | 'resume' | 'hibernate' | 'wake' | 'stop'): Step => ({
  state,
  effects: [{ type }],
});
const report = (text: string): MachineEffect => ({ type: 'report', text });
const refused = ({ waiting }: UnderWay): MachineEffect[] =>
  waiting > 0 ? [{ type: 'refuse', reason: 'The machine is being stopped.', retryAfterMs: 0 }] : [];

function refusal({ reason, until, failures, crashes }: MachineState & { name: 'failed' }, now: number): MachineEffect {
  const retryAfterMs = until - now;
  if (failures > 0 || !crashes) return { type: 'refuse', reason, retryAfterMs };
  const soon = `It ended by itself soon after it started, ${crashes.count} times in a row.`;
  const next = `It may start again in ${Math.ceil(retryAfterMs / 1000)} s. Its owner finds the reason in the origin's log.`;
  return { type: 'refuse', reason: `${soon} ${next}`, retryAfterMs, crashes: crashes.count };
}
