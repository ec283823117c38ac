/**
 * Owns what becomes of the processes of a machine that slept through a restart of the agent: each goes back to whoever
 * had it, sessions and lanes included, and goes on without a new `initialize`. A process whose server is configured
 * otherwise by now, whose secrets have changed, or that nobody knows, is ended as soon as the machine wakes.
 */
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import { type Place, placedAt } from '../places.ts';
import { isProcessDefinition, type ServerDefinition } from '../server.ts';
import type { RunningMachine } from '../vm/driver.ts';
import type { ModernPeers } from './modern-peers.ts';
import type { Peer } from './peer.ts';
import type { Sessions } from './sessions.ts';
import type { Carried, PeerKind, Upstreams } from './upstreams.ts';

export interface Owners {
  readonly upstreams: Upstreams;
  readonly sessions: Sessions;
  readonly peers: ModernPeers;
}

/** A machine that was recalled. */
export interface TakenOver {
  readonly machine: RunningMachine;
  /** Set where it is a caller's own. */
  readonly place?: Place | undefined;
  /** As it was kept. */
  readonly carry: unknown;
}

/** Gives the machine's processes back. Returns how many went on and how many are ended. */
export function takeOver(
  { upstreams, sessions, peers }: Owners,
  definitions: ReadonlyMap<string, ServerDefinition>,
  { machine, place, carry }: TakenOver,
): { kept: number; ended: number } {
  const processes = new Map(machine.processes?.());
  let kept = 0;
  for (const carried of Array.isArray(carry) ? carry.filter(isCarried) : []) {
    const known = definitions.get(carried.server);
    const definition = known && place ? placedAt(known, place) : known;
    const process = processes.get(carried.stream);
    if (!process || !definition || !isProcessDefinition(definition)) continue;
    if (!upstreams.isCurrent(carried, definition)) continue;
    const connect = (kind: PeerKind): Peer => upstreams.adopt(definition, kind, machine, process);
    if (!sessions.adopt(definition, carried.peer, connect) && !peers.adopt(definition, carried.peer, connect)) continue;
    processes.delete(carried.stream);
    kept += 1;
  }
  for (const process of processes.values()) {
    process.kill('SIGKILL');
    process.stdout.resume();
    process.stderr.resume();
  }
  return { kept, ended: processes.size };
}

/** Written by us, and kept with a sum. */
const isCarried = (value: unknown): value is Carried => isRecord(value) && typeof value.stream === 'number';
