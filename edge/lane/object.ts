/**
 * Owns the Lane object: what one principal shares at one server without a session. One object for each lane (`id.ts`).
 *
 * - It admits requests of the stateless era to an origin, under the lane's own grant.
 * - It joins Workers that hold a client's stream to requests that arrive elsewhere, by hibernating WebSockets, tagged:
 *   `listen` (a stream of `subscriptions/listen`, told of every change) and `stream:<id>` (an HTTP+SSE stream of
 *   2024-11-05, told the messages that its client posts).
 *
 * - It remembers which arguments of the server's tools travel in headers (`parameters.ts`), and whether the server's process
 *   was ever needed (`woken.ts`).
 *
 * Invariants: whatever is kept can be made again; another principal's streams are in another object, so an id that leaks
 * opens nothing.
 */
import { DurableObject } from 'cloudflare:workers';
import { MoorageError } from '../../shared/errors.ts';
import { GRANT_LIFE_S, signGrant } from '../../shared/grant.ts';
import type { ChangedLane } from '../../shared/link.ts';
import { machineKeyOf } from '../../shared/machine-key.ts';
import { META } from '../../shared/rev-2026-07-28.ts';
import { MODERN_REVISION } from '../../shared/revision.ts';
import { directoryOf } from '../directory/object.ts';
import type { OriginRoute } from '../directory/route.ts';
import { Doubts } from '../discovery/doubts.ts';
import type { Kind } from '../discovery/question.ts';
import { laneView } from '../discovery/view.ts';
import { type Env, edgeKeyOf } from '../env.ts';
import type { DeclaredTool, Parameter } from '../modern/parameters.ts';
import { type Outcome, outcomeOf } from '../outcome.ts';
import { unknownServer } from '../session/refusals.ts';
import { ParameterStore } from './parameters.ts';
import { Woken } from './woken.ts';

/** Leave to carry requests of a lane. */
export interface LaneAdmission extends Leave {
  /** Arguments of the tool at hand that must agree with their headers. */
  readonly parameters: readonly Parameter[];
  /** Whether any tool of the lane has such. */
  readonly anyParameters: boolean;
  /** Something was asked in it that only the server's process can answer: from then on that process lists for itself. */
  readonly woken: boolean;
}

interface Leave {
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
  readonly #parameters: ParameterStore;
  readonly #woken: Woken;
  readonly #doubts: Doubts;
  #leave: { readonly made: Promise<Leave>; readonly renewAt: number } | undefined;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#parameters = new ParameterStore(state.storage.sql);
    this.#woken = new Woken(state.storage.sql);
    this.#doubts = new Doubts(env, (promise) => state.waitUntil(promise));
  }

  /**
   * Admits a request, which may be for a tool. `wakes`: it needs the server's process, whatever is stored. `stale` is a
   * grant whose route the origin refused: the Directory is asked anew. Refuses `unknown_server`, with the names that exist in `data.servers`.
   */
  admit(
    holder: LaneHolder,
    tool: string | null,
    wakes: boolean,
    stale: string | null,
  ): Promise<Outcome<LaneAdmission>> {
    return outcomeOf(async () => {
      const { route, grant } = await this.#current(holder, stale);
      const parameters = tool === null ? [] : this.#parameters.of(tool);
      if (wakes) this.#woken.set();
      return { route, grant, parameters, anyParameters: this.#parameters.any, woken: this.#woken.is };
    });
  }

  /** Takes what a list of tools says of their parameters. */
  learn(tools: readonly DeclaredTool[]): void {
    this.#parameters.learn(tools);
  }

  /**
   * An origin says that a list changed at the server of lane `holder`. One that does not run that server is passed over: it
   * speaks for its own.
   */
  async listChanged(
    { capabilities, ...holder }: ChangedLane,
    origin: string,
    kind: Kind,
    starting: boolean,
  ): Promise<void> {
    const leave = async () => {
      const made = await outcomeOf(() => this.#current(holder, null));
      return made.ok && made.value.route.origin === origin ? made.value : null;
    };
    if (!(await leave())) return;
    const envelope = {
      [META.revision]: MODERN_REVISION,
      [META.clientInfo]: { name: 'moorage', version: '1' },
      [META.clientCapabilities]: capabilities,
    };
    await this.#doubts.raise(holder, kind, starting, async () => {
      const found = await leave();
      return found && { view: await laneView(holder, envelope), reach: { origin, grant: found.grant, envelope } };
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

  async #current(holder: LaneHolder, stale: string | null): Promise<Leave> {
    const now = Date.now();
    if (this.#leave && this.#leave.renewAt > now) {
      const leave = await this.#leave.made;
      if (leave.grant !== stale) return leave;
    }
    const made = this.#make(holder, now);
    const entry = { made, renewAt: now + GRANT_LIFE_S * 1000 - GRANT_MARGIN_MS };
    this.#leave = entry;
    made.catch(() => {
      if (this.#leave === entry) this.#leave = undefined;
    });
    return await made;
  }

  async #make({ id, server, principal }: LaneHolder, now: number): Promise<Leave> {
    const found = await directoryOf(this.env).resolve(server);
    if (!('route' in found)) throw unknownServer(server, found.servers);
    const { route } = found;
    if (route.runtime === 'edge') throw new MoorageError('internal', 'A server of the edge needs no grant.');
    const { origin, isolation = 'server' } = route;
    const machine = await machineKeyOf(route.machine, isolation, { principal, session: id });
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
