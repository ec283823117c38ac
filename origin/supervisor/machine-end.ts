/**
 * Decides what follows when a machine did not come up, or ended: whether calls that wait get another life of it, or are told
 * when to come again. Pure.
 */
import { crashed, isLoop, tellLoop, waitOf } from './crash-loop.ts';
import type { Alive, MachineEffect, MachineState, Step, UnderWay } from './machine-state.ts';
import { begin, booting, refused, report, stay } from './machine-step.ts';

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** The pause before the next boot after `failures` failed ones in a row, in milliseconds. */
export function pauseAfter(failures: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.max(0, failures - 1));
}

export function bootFailed(state: MachineState & { name: 'booting' }, reason: string, now: number): Step {
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

export function gone(state: MachineState, reason: string, now: number): Step {
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
export function notWoken(state: UnderWay, reason: string): Step {
  const told = report(`could not be woken: ${reason}`);
  if (state.stopping || state.waiting === 0) return { state: { name: 'stopped' }, effects: [...refused(state), told] };
  return { state: booting(state.waiting), effects: [told, { type: 'boot' }] };
}

export function refusal(
  { reason, until, failures, crashes }: MachineState & { name: 'failed' },
  now: number,
): MachineEffect {
  const retryAfterMs = until - now;
  if (failures > 0 || !crashes) return { type: 'refuse', reason, retryAfterMs };
  const soon = `It ended by itself soon after it started, ${crashes.count} times in a row.`;
  const next = `It may start again in ${Math.ceil(retryAfterMs / 1000)} s. Its owner finds the reason in the origin's log.`;
  return { type: 'refuse', reason: `${soon} ${next}`, retryAfterMs, crashes: crashes.count };
}
