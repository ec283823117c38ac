/** Decides how a machine falls asleep, step by step: when its time has come, for others who need its memory, or put away. Pure. */
import {
  type Alive,
  type MachineEffect,
  type MachineState,
  type Sleeps,
  type Step,
  yieldsSince,
} from './machine-state.ts';
import { alive, begin, refused, report, stay } from './machine-step.ts';

/** After a failed hibernation the next try waits this long, in milliseconds. */
const HIBERNATE_AGAIN_MS = 600_000;

/** The deepest sleep whose time has come, step by step. */
export function idle(state: MachineState, now: number, sleeps: Sleeps): Step {
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

export function yieldMemory(state: MachineState, now: number, sleeps: Sleeps): Step {
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

export function putAway(state: Alive, sleeps: Sleeps): Step {
  if (sleeps === undefined) return begin({ name: 'stopping', waiting: 0 }, 'stop');
  return {
    state: { ...alive(state), name: 'pausing', yielding: false, waiting: 0, stopping: true },
    effects: [{ type: 'pause', force: true }],
  };
}

export function paused(state: MachineState & { name: 'pausing' }): Step {
  const { yielding, waiting, stopping } = state;
  if (stopping) {
    const next = begin({ ...alive(state), name: 'hibernating', waiting: 0, stopping }, 'hibernate');
    return { state: next.state, effects: [...refused(state), ...next.effects] };
  }
  if (waiting > 0) return begin({ ...alive(state), name: 'resuming', waiting, stopping }, 'resume');
  if (yielding) return begin({ ...alive(state), name: 'hibernating', waiting, stopping }, 'hibernate');
  return { state: { ...alive(state), name: 'paused', stayUntil: 0 }, effects: [] };
}

export function held(state: MachineState & { name: 'pausing' }, now: number, awakeUntil: number): Step {
  const { life, waiting, stopping } = state;
  if (stopping) return { state, effects: [{ type: 'pause', force: true }] };
  const effects: MachineEffect[] = waiting > 0 ? [{ type: 'ready' }] : [];
  const idleSince = waiting > 0 ? now : state.idleSince;
  return { state: { name: 'running', life, leases: waiting, idleSince, awakeUntil }, effects };
}

export function hibernated(state: MachineState & { name: 'hibernating' }): Step {
  const { idleSince, waiting, stopping } = state;
  if (waiting > 0 && !stopping) return begin({ name: 'waking', waiting, stopping }, 'wake');
  return { state: { name: 'hibernated', idleSince }, effects: refused(state) };
}

export function hibernateFailed(state: MachineState & { name: 'hibernating' }, reason: string, now: number): Step {
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
