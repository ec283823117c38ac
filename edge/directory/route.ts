/**
 * Owns where a server is reached, and who may claim its name. Pure.
 *
 * Invariants: a name belongs to one holder at a time; servers of the edge come before those of any origin; an origin
 * that the edge does not know any more holds nothing.
 */
import type { Isolation } from '../../shared/config/isolation.ts';
import { type AnnouncedServer, DEFAULT_DISCOVERY, type DiscoverySetting } from '../../shared/link.ts';

/** Where calls to a server go. */
export type Route =
  | { readonly runtime: 'edge'; readonly server: string }
  | {
      readonly runtime: AnnouncedServer['runtime'];
      readonly server: string;
      readonly origin: string;
      readonly machine: string;
      readonly deployment: string;
      /** How stored answers to discovery are used. */
      readonly discovery: DiscoverySetting;
      /** Whose the machine is (`machine-key.ts`). Absent in what was stored before there was more than one for all. */
      readonly isolation?: Isolation;
    };

export type OriginRoute = Exclude<Route, { runtime: 'edge' }>;

export interface Refusal {
  readonly server: string;
  readonly reason: string;
}

/** Decides which of the announced servers an origin gets. `held` are the routes that stand, of every origin. */
export function decideAnnouncement(
  origin: string,
  announced: readonly AnnouncedServer[],
  held: readonly OriginRoute[],
  known: { readonly edgeServers: ReadonlySet<string>; readonly origins: ReadonlySet<string> },
): { accepted: OriginRoute[]; refused: Refusal[] } {
  const holders = new Map(
    held
      .filter((route) => route.origin !== origin && known.origins.has(route.origin))
      .map((route) => [route.server, route.origin]),
  );
  const accepted = new Map<string, OriginRoute>();
  const refused: Refusal[] = [];
  for (const { name, runtime, machine, deployment, discovery = DEFAULT_DISCOVERY, isolation = 'server' } of announced) {
    const holder = holders.get(name);
    if (known.edgeServers.has(name))
      refused.push({ server: name, reason: 'the edge itself runs a server of this name' });
    else if (holder !== undefined)
      refused.push({ server: name, reason: `origin "${holder}" has a server of this name` });
    else if (accepted.has(name)) refused.push({ server: name, reason: 'announced twice' });
    else accepted.set(name, { server: name, runtime, machine, deployment, origin, discovery, isolation });
  }
  return { accepted: [...accepted.values()], refused };
}
