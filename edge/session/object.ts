/**
 * Owns the Session object: it admits messages to sessions and joins what servers say unasked to the client's stream. It
 * decides and never waits for a server: the Worker carries.
 *
 * Holds one session, or a shard of them; everything is keyed by session id. Its WebSockets come from Workers, hibernate,
 * and are tagged: `stream:<session>` (the client's GET stream, one at most, its name in the attachment),
 * `mailbox:<session>` plus `mailbox:<session>:<call>` (a running call of an edge server: what it is told comes down here,
 * and that it closes tells that the call is over) and `resumed:` in the same way (a client that came back for the rest of
 * such a call). Frames to clients are `<event id>\n<message>`, the message empty where only the place is told, the id
 * empty where there is no coming back. See `store.ts` for the tables and `session.ts` for the states.
 */
import { DurableObject } from 'cloudflare:workers';
import { MoorageError } from '../../shared/errors.ts';
import { formatEventId, parseEventId } from '../../shared/event-stream.ts';
import { GRANT_LIFE_S, signGrant } from '../../shared/grant.ts';
import { isNotification, type JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { machineKeyOf } from '../../shared/machine-key.ts';
import { takesPriming } from '../../shared/revision.ts';
import { directoryOf } from '../directory/object.ts';
import type { Route } from '../directory/route.ts';
import { type Ask, Doubts } from '../discovery/doubts.ts';
import { changedKindOf } from '../discovery/question.ts';
import { type Told, variantOf } from '../discovery/view.ts';
import { type Env, edgeKeyOf, shardsOf } from '../env.ts';
import { endAtOrigin } from '../origin/client.ts';
import { type Outcome, outcomeOf } from '../outcome.ts';
import { randomName } from '../random.ts';
import { respondError } from '../respond.ts';
import { sessionObjectName } from './id.ts';
import { nothingFollows, sessionNotFound, unknownServer } from './refusals.ts';
import { type Memory, type Restore, type SessionEvent, type SessionState, step } from './session.ts';
import { SessionStore } from './store.ts';

/** Leave to carry one message. */
export interface Admission {
  readonly route: Route;
  /** Signed for the route's origin; null for servers of the edge. */
  readonly grant: string | null;
  readonly restore: Restore;
  /** As negotiated; null while the session opens. */
  readonly revision: string | null;
  /** As in `LiveSession`. */
  readonly told: Told | null;
  readonly asleep: boolean;
}

/** Headers with which a Worker asks for a WebSocket; only Workers reach an object. */
export const STREAM_HEADER = {
  session: 'moorage-session',
  principal: 'moorage-principal',
  /** Name of a running call, for its mailbox; the id of its request in JSON, percent-encoded, begins its stream. */
  call: 'moorage-call',
  request: 'moorage-request',
  /** The id of the last event that the client has. */
  lastEvent: 'moorage-last-event',
} as const;
/** The stream was closed because the client opened another. */
export const CLOSE_REPLACED = 4000;
/** The stream was closed because its session ended. */
export const CLOSE_ENDED = 4001;
/** Nothing follows on a resumed stream: its response was sent. */
const CLOSE_COMPLETE = 1000;

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
  readonly #doubts: Doubts;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#store = new SessionStore(state.storage);
    this.#doubts = new Doubts(env, (promise) => state.waitUntil(promise));
  }

  /** Opens session `id` for an initialize. Refuses `unknown_server`, with the names that exist in `data.servers`. */
  open(id: string, server: string, principal: string, initialize: string): Promise<Outcome<Admission>> {
    return outcomeOf(async () => {
      const route = await this.#route(server);
      await this.#step(id, { type: 'open', server, principal, route, initialize, at: Date.now() });
      return await this.#admission(id);
    });
  }

  /** The answer to initialize is about to reach the client: the server's, or a copy of it. */
  initialized(id: string, told: Told, asleep: boolean): Promise<Outcome<void>> {
    return outcomeOf(() => this.#step(id, { type: 'initialized', told, asleep, at: Date.now() }));
  }

  /** Another process is behind the session. Refuses `session_not_found` when it speaks another revision. */
  restored(id: string, told: Told): Promise<Outcome<void>> {
    return outcomeOf(() => this.#step(id, { type: 'restored', told }));
  }

  /** Initialize failed: the session never was. */
  initializeFailed(id: string): Promise<Outcome<void>> {
    return outcomeOf(() => this.#step(id, { type: 'initialize-failed' }));
  }

  /**
   * Admits one message. `wakes`: it needs the server's process. Refuses `session_not_found`, also when the session is
   * another principal's.
   */
  admit(id: string, principal: string, memory: Memory | null, wakes: boolean): Promise<Outcome<Admission>> {
    return outcomeOf(async () => {
      await this.#step(id, { type: 'message', principal, memory, wakes, at: Date.now() });
      return await this.#admission(id);
    });
  }

  /** Admits the resuming of a call's stream. Refuses like `admit`. */
  admitResume(id: string, principal: string): Promise<Outcome<Admission>> {
    return outcomeOf(async () => {
      await this.#step(id, { type: 'listen', principal, at: Date.now() });
      return await this.#admission(id);
    });
  }

  /** The origin said that the route is stale: asks the Directory and admits anew. */
  reroute(id: string): Promise<Outcome<Admission>> {
    return outcomeOf(async () => {
      const { state } = this.#entry(id);
      if (state.status !== 'open' && state.status !== 'opening') throw sessionNotFound();
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
   * not belong to `origin` (null: the edge itself), are passed over: an origin speaks for its own servers only. `starting`: see
   * `link.ts`.
   */
  async publish(ids: readonly string[], text: string, origin: string | null, starting = false): Promise<void> {
    const message = JSON.parse(text) as JsonRpcMessage;
    const reached = ids.filter((id) => {
      const { state } = this.#entry(id);
      if (state.status !== 'open' && state.status !== 'opening') return false;
      return (state.route.runtime === 'edge' ? null : state.route.origin) === origin;
    });
    const kind = origin === null ? null : changedKindOf(message);
    if (kind !== null) {
      const byServer = new Map(reached.map((id) => [this.#serverOf(id), id]));
      for (const [server, id] of byServer) {
        const { state } = this.#entry(id);
        const principal = 'principal' in state ? state.principal : '';
        await this.#doubts.raise({ server, principal }, kind, starting, () => this.#reachOf(id));
      }
    }
    for (const id of reached) this.#say(id, text, isNotification(message));
  }

  /** On the client's stream, or kept until there is one. */
  #say(id: string, text: string, droppable: boolean): void {
    const socket = this.#sockets(`stream:${id}`)[0];
    const stream = socket ? (socket.deserializeAttachment() as { stream: string }).stream : null;
    const n = this.#store.outgoing.keep(id, text, droppable, stream);
    if (socket && stream !== null) socket.send(frame(n === undefined ? '' : sessionEvent(stream, n), text));
    else if (n === undefined) console.warn('a message without a stream was dropped');
  }

  /** Writes down what a running call of an edge server says, before its client sees it; `last` is the response. */
  recordCall(id: string, call: string, n: number, text: string, kind: 'droppable' | 'kept' | 'last'): void {
    if (this.#entry(id).state.status !== 'open') return;
    this.#store.calls.record(call, { n, text }, kind, Date.now());
    for (const socket of this.#sockets(`resumed:${id}:${call}`)) {
      socket.send(frame(callEvent(call, n), text));
      if (kind === 'last') socket.close(CLOSE_COMPLETE, 'the response was sent');
    }
  }

  /** Hands a client's message to running calls of an edge server: the one named, or all of the session. */
  deliver(id: string, text: string, call: string | null): void {
    const tag = call === null ? `mailbox:${id}` : `mailbox:${id}:${call}`;
    for (const mailbox of this.#sockets(tag)) mailbox.send(text);
  }

  /** A WebSocket for a client's stream, fresh or resumed, or with `moorage-call` for a running call's mailbox. */
  override async fetch(request: Request): Promise<Response> {
    const header = (name: keyof typeof STREAM_HEADER) => request.headers.get(STREAM_HEADER[name]) ?? '';
    const [id, call] = [header('session'), header('call')];
    const admitted = await outcomeOf(() =>
      this.#step(id, { type: 'listen', principal: header('principal'), at: Date.now() }),
    );
    if (!admitted.ok) return respondError(sessionNotFound());
    if (call !== '') {
      this.#store.calls.begin(id, call, decodeURIComponent(header('request')), Date.now());
      return this.#accept([`mailbox:${id}`, `mailbox:${id}:${call}`]).response;
    }
    const at = parseEventId(header('lastEvent'));
    if (at?.kind === 'edge') return this.#resumeCall(id, at.stream, at.n);
    return this.#openStream(id, at?.kind === 'session' ? at : undefined);
  }

  /** The client's own stream. The newest wins: a client that reconnects must not be kept out by its own dead connection. */
  #openStream(id: string, at: { readonly stream: string; readonly n: number } | undefined): Response {
    const stream = at?.stream ?? randomName();
    const { outgoing } = this.#store;
    const messages = at ? outgoing.resume(id, stream, at.n) : outgoing.open(id, stream);
    if (!messages) return respondError(nothingFollows());
    for (const older of this.#sockets(`stream:${id}`)) older.close(CLOSE_REPLACED, 'a newer stream took over');
    const { server, response } = this.#accept([`stream:${id}`]);
    server.serializeAttachment({ stream });
    if (this.#takesPriming(id)) server.send(frame(sessionEvent(stream, at?.n ?? 0), ''));
    for (const { n, text } of messages) server.send(frame(sessionEvent(stream, n), text));
    return response;
  }

  /** The rest of a call of an edge server. One without a mailbox was lost with the isolate that ran it. */
  #resumeCall(id: string, call: string, after: number): Response {
    const { calls } = this.#store;
    if (calls.find(id, call) === 'running' && this.#sockets(`mailbox:${id}:${call}`).length === 0) {
      calls.abandon(id, call, Date.now());
    }
    const status = calls.find(id, call);
    const events = status === undefined ? [] : calls.after(call, after);
    if (status !== 'running' && events.length === 0) return respondError(nothingFollows());
    for (const older of this.#sockets(`resumed:${id}:${call}`)) older.close(CLOSE_REPLACED, 'a newer stream took over');
    const { server, response } = this.#accept([`resumed:${id}`, `resumed:${id}:${call}`]);
    if (this.#takesPriming(id)) server.send(frame(callEvent(call, after), ''));
    for (const { n, text } of events) server.send(frame(callEvent(call, n), text));
    if (status === 'ended') server.close(CLOSE_COMPLETE, 'the response was sent');
    return response;
  }

  #accept(tags: string[]): { readonly server: WebSocket; readonly response: Response } {
    const { 0: client, 1: server } = new WebSocketPair();
    this.ctx.acceptWebSocket(server, tags);
    return { server, response: new Response(null, { status: 101, webSocket: client }) };
  }

  #takesPriming(id: string): boolean {
    const { state } = this.#entry(id);
    return takesPriming(state.status === 'open' ? (state.told?.protocolVersion ?? null) : null);
  }

  override webSocketClose(socket: WebSocket): void {
    const [, id, call] =
      this.ctx
        .getTags(socket)
        .map((tag) => /^mailbox:([^:]+):(.+)$/.exec(tag))
        .find(Boolean) ?? [];
    socket.close();
    if (id === undefined || call === undefined || this.#entry(id).state.status !== 'open') return;
    const lost = this.#store.calls.abandon(id, call, Date.now());
    for (const resumed of lost ? this.#sockets(`resumed:${id}:${call}`) : []) {
      resumed.send(frame(callEvent(call, lost?.n ?? 0), lost?.text ?? ''));
      resumed.close(CLOSE_COMPLETE, 'the response was sent');
    }
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
        case 'tell-client':
          for (const kind of effect.changed) {
            this.#say(id, JSON.stringify({ jsonrpc: '2.0', method: `notifications/${kind}/list_changed` }), true);
          }
          break;
        case 'forget':
          for (const tag of [`stream:${id}`, `mailbox:${id}`, `resumed:${id}`]) {
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

  #serverOf(id: string): string {
    const { state } = this.#entry(id);
    return 'server' in state ? state.server : '';
  }

  /** How to ask the process behind a session, and what that process sees of its client. */
  async #reachOf(id: string): ReturnType<Ask> {
    const { state } = this.#entry(id);
    if (state.status !== 'open' || state.route.runtime === 'edge') return null;
    const { grant, restore } = await this.#admission(id);
    const { server, principal, route } = state;
    const view = { server, principal, variant: await variantOf(restore.initialize) };
    return { view, reach: { origin: route.origin, grant: grant ?? '' } };
  }

  async #admission(id: string): Promise<Admission> {
    const entry = this.#entry(id);
    const { state } = entry;
    if (state.status !== 'open' && state.status !== 'opening') throw sessionNotFound();
    const { route, restore, told, asleep } = state;
    const known = { route, restore, told, asleep, revision: told?.protocolVersion ?? null };
    if (route.runtime === 'edge') return { ...known, grant: null };
    const now = Date.now();
    if (!entry.grant || entry.grant.route !== route || entry.grant.renewAt <= now) {
      const token = await this.#sign(id, state, route);
      entry.grant = { token, route, renewAt: now + GRANT_LIFE_S * 1000 - GRANT_MARGIN_MS };
    }
    return { ...known, grant: entry.grant.token };
  }

  async #sign(id: string, holder: { principal: string }, route: Exclude<Route, { runtime: 'edge' }>): Promise<string> {
    const { origin, server, isolation = 'server' } = route;
    const caller = { principal: holder.principal, session: id };
    const machine = await machineKeyOf(route.machine, isolation, caller);
    return await signGrant(await edgeKeyOf(this.env), { origin, server, machine, ...caller }, Date.now());
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

const frame = (eventId: string, text: string): string => `${eventId}\n${text}`;
const sessionEvent = (stream: string, n: number): string => formatEventId({ kind: 'session', stream, n });
const callEvent = (stream: string, n: number): string => formatEventId({ kind: 'edge', stream, n });
