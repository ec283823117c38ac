/**
 * Owns a server's endpoint for messages of the stateless era (2026-07-28): judged, then answered by a server of the edge
 * or carried to an origin. There is no session: requests of one principal at one server share a lane.
 */
import { edgeServers } from 'moorage:edge-servers';
import { isNotification } from '../../shared/jsonrpc.ts';
import { answerModernAtEdge } from '../edge-servers/modern.ts';
import { sessionKeyOf } from '../env.ts';
import { isPinned } from '../guard/settings.ts';
import { laneId } from '../lane/id.ts';
import type { Exchange } from '../mcp.ts';
import { hearingAcceptance } from '../pins/acceptance.ts';
import type { ReadMessage } from '../read-message.ts';
import { carryModern, carryNotification } from './carry.ts';
import { checkModern } from './classify.ts';
import { heldOpen } from './hold.ts';
import { listenModern } from './listen.ts';
import { LISTEN, LISTEN_BEAT_MS } from './subscription.ts';

/** A call whose client has gone is cancelled after about twice this time, in milliseconds. */
const NOTICE_WITHIN_MS = 2000;

/** Answers one message. @throws MoorageError. */
export async function serveModern(exchange: Exchange, { message, bytes }: ReadMessage): Promise<Response> {
  const { env, request: http, server, waitUntil } = exchange;
  const checked = checkModern(message, (name) => http.headers.get(name));
  const principal = exchange.principal.subject;
  const lane = await laneId(await sessionKeyOf(env), server, principal);
  const factory = Object.hasOwn(edgeServers, server) ? edgeServers[server] : undefined;
  const holder = { id: lane, server, principal };
  if (!checked) {
    if (!factory && isNotification(message))
      await carryNotification({ env, holder, bytes, headers: http.headers }, message);
    return new Response(null, { status: 202 });
  }
  const { request, envelope } = checked;
  const leaving = new AbortController();
  http.signal.addEventListener('abort', () => leaving.abort());
  const { signal } = leaving;
  const answer = async () => {
    if (!factory) {
      const carried = { env, holder, request, bytes, headers: http.headers, signal, waitUntil };
      if (request.method !== LISTEN) return await carryModern(carried);
      const listening = await listenModern(carried, leaving);
      if (listening) return listening;
      const answered = await carryModern(carried);
      if (exchange.counted || !isPinned(env, server)) return answered;
      const concerns = (changed: string) => changed === server;
      return await hearingAcceptance(answered, { env, principal, concerns, listen: request });
    }
    const context = { server, session: lane, principal };
    return await answerModernAtEdge({ env, factory, context, request, envelope, http, signal, waitUntil });
  };
  const beatMs = request.method === LISTEN ? LISTEN_BEAT_MS : NOTICE_WITHIN_MS;
  return await heldOpen(answer(), { id: request.id, beatMs, leaving });
}
