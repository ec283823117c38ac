/**
 * Owns the Session object: it admits messages to sessions and joins what servers say unasked to the client's stream. It
 * decides and never waits for a server: the Worker carries.
 *
 * Holds one session, or a shard of them; everything is keyed by session id. Its WebSockets come from Workers, hibernate,
 * and are tagged: `stream:<session>` (the client's GET stream, one at most) and `mailbox:<session>` plus
 * `mailbox:<session>:<call>` (a running call of an edge server that may be told something). See `store.ts` for the tables
 * and `session.ts` for the states.
 */
import { DurableObject } from 'cloudflare:workers';
import { MoorageError } from '../../shared/errors.ts';
import { GRANT_LIFE_S, signGrant } from '../../shared/grant.ts';
import { isNotification, type JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { directoryOf } from '../directory/object.ts';
import type { Route } from '../directory/route.ts';
import { type Env, edgeKeyOf, shardsOf } from '../env.ts';
import { endAtOrigin } from '../origin/client.ts';
import { type Outcome, outcomeOf } from '../outcome.ts';
import { respondError } from '../respond.ts';
import { sessionObjectName } from './id.ts';
import { type Memory, type Restore, type SessionEvent, type SessionState, step } from './session.ts';
import { SessionStore } from './store.ts';

/** Leave to carry one message. */
export interface Admission {
  readonly route: Route;
  /** Signed for the route's origin; null for servers of the edge. */
  readonly grant: string | null;
  readonly restore: Restore;
}

/** Headers with which a Worker asks for a WebSocket; only Workers reach an object. */
export const STREAM_HEADER = {
  session: 'moorage-session',
  principal: 'moorage-principal',
  call: 'moorage-call',
} as const;
/** The stream was closed because the client opened another. */
export const CLOSE_REPLACED = 4000;
/** The stream was closed because its session ended. */
export const CLOSE_ENDED = 4001;

/** A grant is renewed when it is good for less than this. */
const GRANT_MARGIN_MS = 60_000;
/** The time of last use goes to disk at most this often. */
const TOUCH_MS = 5 * 60 * 1000;
/** Sessions whose state is kept in memory; beyond it, it is read from disk again. */
const MAX_CACHED = 5000;

interface Entry {
  state: SessionState;
  savedAt: number;
  grant?: { readonly token: string; readonly route: Route; readonly renewAt: number };
}

export class Session extends DurableObject<Env> {
  readonly #store: SessionStore;
  readonly #entries = new Map<string, Entry>();

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#store = new SessionStore(state.storage);
  }

  /** Opens session `id` for an initialize. Refuses `unknown_server`, with the names that exist in `data.servers`. */
  open(id: string, server: string, principal: string, initialize: string): Promise<Outcome<Admission>> {
    return outcomeOf(async () => {
      const route = await this.#route(server);
      await this.#step(id, { type: 'open', server, principal, route, initialize, at: Date.now() });
      return await this.#admission(id);
    });
  }

  /** The server's answer to initialize is about to reach the client. */
  initialized(id: string, protocolVersion: string): Promise<Outcome<void>> {
    return outcomeOf(() => this.#step(id, { type: 'initialized', protocolVersion, at: Date.now() }));
  }

  /** Initialize failed: the session never was. */
  initializeFailed(id: string): Promise<Outcome<void>> {
    return outcomeOf(() => this.#step(id, { type: 'initialize-failed' }));
  }

  /** Admits one message. Refuses `session_not_found`, also when the session is another principal's. */
  admit(id: string, principal: string, memory: Memory | null): Promise<Outcome<Admission>> {
    return outcomeOf(async () => {
      await this.#step(id, { type: 'message', principal, memory, at: Date.now() });
      return await this.#admission(id);
    });
  }

  /** The origin said that the route is stale: asks the Directory and admits anew. */
  reroute(id: string): Promise<Outcome<Admission>> {
    return outcomeOf(async () => {
      const { state } = this.#entry(id);
      if (state.status !== 'open' && state.status !== 'opening') throw lost();
      await this.#step(id, { type: 'reroute', route: await this.#route(state.server) });
      return await this.#admission(id);
    });
  }

  /** Ends a session at its client's wish. */
  end(id: string, principal: string): Promise<Outcome<void>> {
    return outcomeOf(() => this.#step(id, { type: 'end', principal }));
  }

  /**
   * Hands a message to sessions' streams, or keeps it for those that have none. Sessions that are not here, or that do
   * not belong to `origin` (null: the edge itself), are passed over: an origin speaks for its own servers only.
   */
  publish(ids: readonly string[], text: string, origin: string | null): void {
    const droppable = isNotification(JSON.parse(text) as JsonRpcMessage);
    for (const id of ids) {
      const { state } = this.#entry(id);
      if (state.status !== 'open' && state.status !== 'opening') continue;
      if ((state.route.runtime === 'edge' ? null : state.route.origin) !== origin) continue;
      const stream = this.#sockets(`stream:${id}`)[0];
      if (stream) stream.send(text);
      else if (!this.#store.enqueue(id, text, droppable)) console.warn('a message without a stream was dropped');
    }
  }

  /** Hands a client's message to running calls of an edge server: the one named, or all of the session. */
  deliver(id: string, text: string, call: string | null): void {
    const tag = call === null ? `mailbox:${id}` : `mailbox:${id}:${call}`;
    for (const mailbox of this.#sockets(tag)) mailbox.send(text);
  }

  /** A WebSocket for a client's stream, or with `moorage-call` for a running call's mailbox. */
  override async fetch(request: Request): Promise<Response> {
    const id = request.headers.get(STREAM_HEADER.session) ?? '';
    const principal = request.headers.get(STREAM_HEADER.principal) ?? '';
    const call = request.headers.get(STREAM_HEADER.call);
    const admitted = await outcomeOf(() => this.#step(id, { type: 'listen', principal, at: Date.now() }));
    if (!admitted.ok) return respondError(lost());
    const { 0: client, 1: server } = new WebSocketPair();
    if (call !== null) {
      this.ctx.acceptWebSocket(server, [`mailbox:${id}`, `mailbox:${id}:${call}`]);
    } else {
      // The newest stream wins: a client that reconnects must not be kept out by its own dead connection.
      for (const older of this.#sockets(`stream:${id}`)) older.close(CLOSE_REPLACED, 'a newer stream took over');
      this.ctx.acceptWebSocket(server, [`stream:${id}`]);
      for (const text of this.#store.dequeue(id)) server.send(text);
    }
    return new Response(null, { status: 101, webSocket: client });
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }

  override async alarm(): Promise<void> {
    const now = Date.now();
    for (const id of this.#store.due(now)) {
      const listening = this.#sockets(`stream:${id}`).length > 0;
      await this.#step(id, { type: 'alarm', at: now, listening });
      const { state, savedAt } = this.#entry(id);
      // Used since the disk was last written: written now, so that the next alarm is set by it.
      if (state.status === 'open' && savedAt !== state.seenAt) this.#save(id, state);
    }
    await this.#schedule();
  }

  /** One event through the state machine, and its effects in order. @throws MoorageError on `refuse`. */
  async #step(id: string, event: SessionEvent): Promise<void> {
    const entry = this.#entry(id);
    const { state, effects } = step(entry.state, event);
    entry.state = state;
    for (const effect of effects) {
      switch (effect.type) {
        case 'refuse':
          throw new MoorageError(effect.code, effect.message);
        case 'save':
          if (state.status === 'open' || state.status === 'opening') this.#save(id, state);
          await this.#schedule();
          break;
        case 'forget':
          for (const tag of [`stream:${id}`, `mailbox:${id}`]) {
            for (const socket of this.#sockets(tag)) socket.close(CLOSE_ENDED, 'the session ended');
          }
          this.#entries.delete(id);
          await this.#store.remove(id);
          break;
        case 'tell-origin':
          if (effect.route.runtime !== 'edge') {
            const token = await this.#sign(id, effect, effect.route);
            this.ctx.waitUntil(endAtOrigin(this.env, effect.route.origin, token));
          }
          break;
        case 'admit':
          if (state.status === 'open' && state.seenAt - entry.savedAt > TOUCH_MS) this.#save(id, state);
          break;
      }
    }
  }

  #entry(id: string): Entry {
    const known = this.#entries.get(id);
    if (known) return known;
    const state = this.#store.load(id);
    const entry: Entry = { state, savedAt: 'seenAt' in state ? state.seenAt : 0 };
    if (this.#entries.size >= MAX_CACHED) this.#entries.clear();
    // Ids that mean nothing are not worth remembering; an id that is being opened is saved in the same turn.
    if (state.status !== 'absent') this.#entries.set(id, entry);
    return entry;
  }

  #save(id: string, state: Extract<SessionState, { seenAt: number }>): void {
    this.#store.save(id, state);
    const entry = this.#entries.get(id);
    if (entry) entry.savedAt = state.seenAt;
  }

  async #admission(id: string): Promise<Admission> {
    const entry = this.#entry(id);
    const { state } = entry;
    if (state.status !== 'open' && state.status !== 'opening') throw lost();
    const { route, restore } = state;
    if (route.runtime === 'edge') return { route, grant: null, restore };
    const now = Date.now();
    if (!entry.grant || entry.grant.route !== route || entry.grant.renewAt <= now) {
      const token = await this.#sign(id, state, route);
      entry.grant = { token, route, renewAt: now + GRANT_LIFE_S * 1000 - GRANT_MARGIN_MS };
    }
    return { route, grant: entry.grant.token, restore };
  }

  async #sign(id: string, holder: { principal: string }, route: Exclude<Route, { runtime: 'edge' }>): Promise<string> {
    const { origin, server, machine } = route;
    const { principal } = holder;
    return await signGrant(await edgeKeyOf(this.env), { origin, principal, server, machine, session: id }, Date.now());
  }

  async #route(server: string): Promise<Route> {
    const found = await directoryOf(this.env).resolve(server);
    if ('route' in found) return found.route;
    throw unknownServer(server, found.servers);
  }

  #sockets(tag: string): WebSocket[] {
    return this.ctx.getWebSockets(tag).filter((socket) => socket.readyState === WebSocket.OPEN);
  }

  /** An alarm stands exactly while there is something to expire, never later than that is due. */
  async #schedule(): Promise<void> {
    const due = this.#store.nextDue();
    if (due === null) return;
    const at = await this.ctx.storage.getAlarm();
    if (at === null || at > due) await this.ctx.storage.setAlarm(due);
  }
}

/** The object that holds session `id`. */
export function sessionOf(env: Env, id: string): DurableObjectStub<Session> {
  return env.SESSION.get(env.SESSION.idFromName(sessionObjectName(id, shardsOf(env))));
}

export function unknownServer(server: string, servers: readonly string[]): MoorageError {
  const known = servers.length > 0 ? `Servers here: ${servers.join(', ')}.` : 'No server is known here so far.';
  return new MoorageError('unknown_server', `There is no server "${server}". ${known}`, { servers });
}

function lost(): MoorageError {
  return new MoorageError('session_not_found', 'This session does not exist or has ended. Initialize a new one.');
}
