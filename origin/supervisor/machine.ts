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
import { bootFailed, gone, notWoken, refusal } from './machine-end.ts';
import { held, hibernated, hibernateFailed, idle, paused, putAway, yieldMemory } from './machine-sleep.ts';
import {
  dueAt,
  type Life,
  type MachineEffect,
  type MachineEvent,
  type MachineState,
  type Sleeps,
  type Step,
  type UnderWay,
} from './machine-state.ts';
import { alive, begin, booting, newLife, refused, stay } from './machine-step.ts';

/** Calls that wait for one machine, at most: more are refused at once (a queue without bound helps nobody). */
export const MAX_WAITING = 2_000;

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
