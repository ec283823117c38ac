/**
 * Owns the Lane object: what one principal shares at one server without a session. One object for each lane (`id.ts`).
 *
 * - It admits requests of the stateless era to an origin, under the lane's own grant.
 * - It joins Workers that hold a client's stream to requests that arrive elsewhere, by hibernating WebSockets, tagged:
 *   `listen` (a stream of `subscriptions/listen`, told of every change) and `stream:<id>` (an HTTP+SSE stream of
 *   2024-11-05, told the messages that its client posts).
 *
 * Invariants: nothing is on disk, and what is kept in memory can be made again; another principal's streams are in
 * another object, so an id that leaks opens nothing.
 */
import { DurableObject } from 'cloudflare:workers';
import { MoorageError } from '../../shared/errors.ts';
import { GRANT_LIFE_S, signGrant } from '../../shared/grant.ts';
import { directoryOf } from '../directory/object.ts';
import type { OriginRoute } from '../directory/route.ts';
import { type Env, edgeKeyOf } from '../env.ts';
import { type Outcome, outcomeOf } from '../outcome.ts';
import { unknownServer } from '../session/object.ts';

/** Leave to carry requests of a lane. */
export interface LaneAdmission {
  readonly route: OriginRoute;
  /** Signed for the route's origin, with the lane as its session. */
  readonly grant: string;
}

/** Whose lane it is. */
export interface LaneHolder {
  readonly id: string;
  readonly server: string;
  readonly principal: string;
}

/** The header with which a Worker says what its WebSocket is for; only Workers reach an object. */
const TAG_HEADER = 'moorage-tag';
const LISTEN_TAG = 'listen';
const streamTag = (stream: string): string => `stream:${stream}`;

/** Route and grant are made anew when the grant is good for less than this. */
const GRANT_MARGIN_MS = 60_000;
/** Streams that one principal may hold at one server. */
const MAX_STREAMS = 1000;

export class Lane extends DurableObject<Env> {
  #admitted: { readonly admission: Promise<LaneAdmission>; readonly renewAt: number } | undefined;

  /**
   * Admits a request. `stale` is an admission whose route the origin refused: the Directory is asked anew.
   * Refuses `unknown_server`, with the names that exist in `data.servers`.
   */
  admit(holder: LaneHolder, stale: LaneAdmission | null): Promise<Outcome<LaneAdmission>> {
    return outcomeOf(async () => {
      const now = Date.now();
      if (this.#admitted && this.#admitted.renewAt > now) {
        const admission = await this.#admitted.admission;
        if (admission.grant !== stale?.grant) return admission;
      }
      const admission = this.#admission(holder, now);
      const admitted = { admission, renewAt: now + GRANT_LIFE_S * 1000 - GRANT_MARGIN_MS };
      this.#admitted = admitted;
      admission.catch(() => {
        if (this.#admitted === admitted) this.#admitted = undefined;
      });
      return await admission;
    });
  }

  /** Tells every listening stream of a change. */
  publish(text: string): void {
    for (const socket of this.#sockets(LISTEN_TAG)) socket.send(text);
  }

  /** Hands a client's message to the Worker that holds its HTTP+SSE stream. False when there is no such stream. */
  post(stream: string, text: string): boolean {
    const [socket] = this.#sockets(streamTag(stream));
    socket?.send(text);
    return socket !== undefined;
  }

  override fetch(request: Request): Response {
    if (this.ctx.getWebSockets().length >= MAX_STREAMS) return new Response(null, { status: 503 });
    const { 0: client, 1: server } = new WebSocketPair();
    this.ctx.acceptWebSocket(server, [request.headers.get(TAG_HEADER) ?? '']);
    return new Response(null, { status: 101, webSocket: client });
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }

  async #admission({ id, server, principal }: LaneHolder, now: number): Promise<LaneAdmission> {
    const found = await directoryOf(this.env).resolve(server);
    if (!('route' in found)) throw unknownServer(server, found.servers);
    const { route } = found;
    if (route.runtime === 'edge') throw new MoorageError('internal', 'A server of the edge needs no grant.');
    const { origin, machine } = route;
    const claims = { origin, principal, server, machine, session: id };
    return { route, grant: await signGrant(await edgeKeyOf(this.env), claims, now) };
  }

  #sockets(tag: string): WebSocket[] {
    return this.ctx.getWebSockets(tag).filter((socket) => socket.readyState === WebSocket.OPEN);
  }
}

/** The object of lane `id`. */
export const laneOf = (env: Env, id: string): DurableObjectStub<Lane> => env.LANE.get(env.LANE.idFromName(id));

/** A WebSocket that hears of every change that servers of the edge publish in the lane. @throws MoorageError `overloaded`. */
export const joinListeners = (env: Env, lane: string): Promise<WebSocket> => join(env, lane, LISTEN_TAG);

/** A WebSocket that hears what is posted to HTTP+SSE stream `stream`. @throws MoorageError `overloaded`. */
export const joinStream = (env: Env, lane: string, stream: string): Promise<WebSocket> =>
  join(env, lane, streamTag(stream));

async function join(env: Env, lane: string, tag: string): Promise<WebSocket> {
  const headers = new Headers({ upgrade: 'websocket', [TAG_HEADER]: tag });
  const { webSocket } = await laneOf(env, lane).fetch('http://lane/', { headers });
  if (!webSocket)
    throw new MoorageError('overloaded', `There are ${MAX_STREAMS} open streams already. Close some first.`);
  webSocket.accept();
  return webSocket;
}
