/**
 * Owns the life of one machine as a pure state machine: `(state, event) -> (state, effects)`. No clock, no I/O.
 *
 * ```
 * absent ──want──▶ booting ──booted──▶ running ──gone──▶ stopped ──want──▶ booting
 *                     │                   │
 *                 boot-failed            stop ──▶ stopping ──gone──▶ stopped
 *                     ▼
 *                  failed ──want, after its pause──▶ booting
 * ```
 * Invariants: at most one `boot` effect is unanswered at any time, so a disk never has two machines; every `want` is
 * answered by exactly one `ready` or `refuse` effect (all waiting ones at once); nothing boots while stopping.
 */

export type MachineState =
  | { readonly name: 'absent' | 'stopped' }
  | { readonly name: 'booting'; readonly failures: number; readonly waiting: number; readonly stopAfter: boolean }
  | { readonly name: 'running' }
  /** `waiting` calls came while it was stopping: it boots again at once. */
  | { readonly name: 'stopping'; readonly waiting: number }
  /** `until` is when the next try may begin, in milliseconds. */
  | { readonly name: 'failed'; readonly failures: number; readonly until: number; readonly reason: string };

export type MachineEvent =
  /** A call needs the machine. */
  | { readonly type: 'want' }
  | { readonly type: 'booted' }
  | { readonly type: 'boot-failed'; readonly reason: string }
  /** The machine ended, asked or not. */
  | { readonly type: 'gone'; readonly reason: string }
  | { readonly type: 'stop' };

export type MachineEffect =
  | { readonly type: 'boot' }
  | { readonly type: 'stop' }
  /** Everyone who waits may use the machine. */
  | { readonly type: 'ready' }
  /** Everyone who waits is told why not. `retryAfterMs` is when a new try makes sense. */
  | { readonly type: 'refuse'; readonly reason: string; readonly retryAfterMs: number }
  /** The owner should read this. */
  | { readonly type: 'report'; readonly text: string };

export interface Step {
  readonly state: MachineState;
  readonly effects: readonly MachineEffect[];
}

/** Boots asked for while one waits, at most: more are refused at once (a queue without bound helps nobody). */
export const MAX_WAITING = 2_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

export const ABSENT: MachineState = { name: 'absent' };

/** The pause before the next boot after `failures` failed ones in a row, in milliseconds. */
export function pauseAfter(failures: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, failures - 1));
}

/** One step. `now` is in milliseconds. */
export function step(state: MachineState, event: MachineEvent, now: number): Step {
  switch (event.type) {
    case 'want':
      return want(state, now);
    case 'booted':
      return state.name === 'booting'
        ? state.stopAfter
          ? {
              state: { name: 'stopping', waiting: 0 },
              effects: [refusal('The machine is being stopped.'), { type: 'stop' }],
            }
          : { state: { name: 'running' }, effects: [{ type: 'ready' }] }
        : stay(state);
    case 'boot-failed':
      return state.name === 'booting' ? bootFailed(state, event.reason, now) : stay(state);
    case 'gone':
      return gone(state, event.reason);
    case 'stop':
      return stop(state);
  }
}

function want(state: MachineState, now: number): Step {
  switch (state.name) {
    case 'absent':
    case 'stopped':
      return { state: { name: 'booting', failures: 0, waiting: 1, stopAfter: false }, effects: [{ type: 'boot' }] };
    case 'failed':
      if (now < state.until) {
        return { state, effects: [{ type: 'refuse', reason: state.reason, retryAfterMs: state.until - now }] };
      }
      return {
        state: { name: 'booting', failures: state.failures, waiting: 1, stopAfter: false },
        effects: [{ type: 'boot' }],
      };
    case 'booting':
    case 'stopping':
      // The shell refuses the one that is over the bound by itself: those who already wait keep their place.
      return { state: { ...state, waiting: Math.min(MAX_WAITING, state.waiting + 1) }, effects: [] };
    case 'running':
      return { state, effects: [{ type: 'ready' }] };
  }
}

function bootFailed(state: MachineState & { name: 'booting' }, reason: string, now: number): Step {
  if (state.stopAfter) return { state: { name: 'stopped' }, effects: [refusal('The machine is being stopped.')] };
  const failures = state.failures + 1;
  const pause = pauseAfter(failures);
  return {
    state: { name: 'failed', failures, until: now + pause, reason },
    effects: [
      { type: 'refuse', reason, retryAfterMs: pause },
      { type: 'report', text: `did not boot (${failures} in a row): ${reason}` },
    ],
  };
}

function gone(state: MachineState, reason: string): Step {
  switch (state.name) {
    case 'running':
      return { state: { name: 'stopped' }, effects: [{ type: 'report', text: `ended by itself: ${reason}` }] };
    case 'stopping':
      return state.waiting > 0
        ? {
            state: { name: 'booting', failures: 0, waiting: state.waiting, stopAfter: false },
            effects: [{ type: 'boot' }],
          }
        : { state: { name: 'stopped' }, effects: [] };
    default:
      return stay(state);
  }
}

function stop(state: MachineState): Step {
  switch (state.name) {
    case 'running':
      return { state: { name: 'stopping', waiting: 0 }, effects: [{ type: 'stop' }] };
    case 'booting':
      return { state: { ...state, stopAfter: true }, effects: [] };
    default:
      return stay(state);
  }
}

const stay = (state: MachineState): Step => ({ state, effects: [] });
const refusal = (reason: string): MachineEffect => ({ type: 'refuse', reason, retryAfterMs: 0 });
