/** The words in which the steps of a machine are said: what stays, what begins, who is told. Pure. */
import type { Alive, Life, MachineEffect, MachineState, Remembers, Step, UnderWay } from './machine-state.ts';

export const alive = ({ life, idleSince }: Alive): Alive => ({ life, idleSince });
export const newLife = (now: number, { crashes }: Remembers = {}): Life => ({ since: now, wasOfUse: false, crashes });
export const booting = (waiting: number) => ({ name: 'booting', failures: 0, waiting, stopping: false }) as const;
export const stay = (state: MachineState): Step => ({ state, effects: [] });
export const begin = (state: MachineState, type: 'boot' | 'resume' | 'hibernate' | 'wake' | 'stop'): Step => ({
  state,
  effects: [{ type }],
});
export const report = (text: string): MachineEffect => ({ type: 'report', text });
export const refused = ({ waiting }: UnderWay): MachineEffect[] =>
  waiting > 0 ? [{ type: 'refuse', reason: 'The machine is being stopped.', retryAfterMs: 0 }] : [];
