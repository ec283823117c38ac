/**
 * Owns which processes of a copied machine go on in the copy, and how they are known there: those that sessions share, with
 * nobody's sessions (and only where the copy is given the same secrets: `take-over.ts`). One that belongs to a single session stays that session's and ends in the copy.
 */
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import type { ServerDefinition } from '../server.ts';
import type { Carried } from './upstreams.ts';

/** `carried` is what the machine itself would carry. Both results are for `CopyOptions`. */
export function copiedPeers(
  carried: readonly Carried[],
  from: ServerDefinition,
  to: ServerDefinition,
): { carry: Carried[]; keep: number[] } {
  const carry = carried.flatMap(({ server, stream, secrets, peer }): Carried[] => {
    const own = server === from.name ? shared(peer, to) : undefined;
    return own ? [{ server: to.name, deployment: to.deployment, stream, secrets, peer: own }] : [];
  });
  return { carry, keep: carry.map(({ stream }) => stream) };
}

function shared(peer: unknown, to: ServerDefinition): unknown {
  if (!isRecord(peer) || typeof peer.key !== 'string' || to.entry.process === 'session') return undefined;
  const [, , ...rest] = JSON.parse(peer.key) as unknown[];
  const key = JSON.stringify([to.name, to.machine, ...rest]);
  if (peer.of === 'lanes') return { ...peer, key };
  if (peer.of !== 'sessions' || peer.mode !== 'shared' || !isRecord(peer.correlator)) return undefined;
  return { ...peer, key, correlator: { ...peer.correlator, sessions: [], questions: [], subscribers: [] } };
}
