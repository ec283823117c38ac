/**
 * Owns which processes of a copied machine go on in the copy, and how they are known there: those that sessions share, with
 * nobody's sessions, and only those whose secrets are what the copy is given. One that belongs to a single session stays
 * that session's and ends in the copy.
 */
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import type { ServerDefinition } from '../server.ts';
import type { Carried } from './upstreams.ts';

/** What goes on; `carry` and `keep` are for `CopyOptions`. */
export interface CopiedPeers {
  readonly carry: readonly Carried[];
  readonly keep: readonly number[];
  /** How many could go on but for their secrets, which are others than the copy is given. */
  readonly renewed: number;
}

/** `carried` is what the machine itself would carry; `isCurrent` says whether the copy would start it with these secrets. */
export function copiedPeers(
  carried: readonly Carried[],
  from: ServerDefinition,
  to: ServerDefinition,
  isCurrent: (carried: Carried) => boolean,
): CopiedPeers {
  const shareable = carried.flatMap(({ server, stream, secrets, peer }): Carried[] => {
    const own = server === from.name ? shared(peer, to) : undefined;
    return own ? [{ server: to.name, deployment: to.deployment, stream, secrets, peer: own }] : [];
  });
  const carry = shareable.filter(isCurrent);
  return { carry, keep: carry.map(({ stream }) => stream), renewed: shareable.length - carry.length };
}

function shared(peer: unknown, to: ServerDefinition): unknown {
  if (!isRecord(peer) || typeof peer.key !== 'string' || to.entry.process === 'session') return undefined;
  const [, , ...rest] = JSON.parse(peer.key) as unknown[];
  const key = JSON.stringify([to.name, to.machine, ...rest]);
  if (peer.of === 'lanes') return { ...peer, key };
  if (peer.of !== 'sessions' || peer.mode !== 'shared' || !isRecord(peer.correlator)) return undefined;
  return { ...peer, key, correlator: { ...peer.correlator, sessions: [], questions: [], subscribers: [] } };
}
