/**
 * Owns the requests of clients without sessions at servers that have them: a virtual session per lane and set of declared
 * capabilities, opened as any session is (`sessions.ts` decides which process it gets) and ended when it was idle long.
 *
 * Calls that wait for their client are kept here, bounded in number (per lane and in all) and in life; one that nobody
 * comes back for is cancelled at the server.
 */
import { createHash, randomBytes } from 'node:crypto';
import { MoorageError } from '../../../shared/errors.ts';
import type { JsonRpcMessage, JsonRpcRequest } from '../../../shared/jsonrpc.ts';
import type { ChangedLane } from '../../../shared/link.ts';
import { INPUT_METHODS, isRecord, isRetry, methodNotFound, REMOVED_METHODS } from '../../../shared/rev-2026-07-28.ts';
import { LEGACY_REVISIONS } from '../../../shared/revision.ts';
import type { ServerDefinition } from '../../server.ts';
import type { Arrival } from '../lanes.ts';
import type { CallSink } from '../peer.ts';
import { type Binding, badState, RequestStates } from '../request-state.ts';
import { isShared, type Sessions } from '../sessions.ts';
import { discoverResult, legacyCapabilities, modernError } from '../to-modern.ts';
import { LaneCall, type Reader } from './call.ts';
import { changedLaneOf } from './list-watch.ts';
import { LaneSession } from './session.ts';

/** How long a call waits for its client, in milliseconds. People answer in minutes. */
const PARK_LIFE_MS = 10 * 60_000;
const MAX_PARKED = 1_000;
const MAX_PARKED_PER_LANE = 32;
/** An idle virtual session is ended after this, in milliseconds. What a process keeps in memory goes with its own one. */
const IDLE_MS = 30 * 60_000;
const SWEEP_EVERY_MS = 60_000;

const PREFIX = 'lane ';
export const isVirtual = (session: string): boolean => session.startsWith(PREFIX);

interface Known {
  readonly lane: string;
  /** Of the request that opened it. */
  readonly view: ChangedLane | undefined;
  readonly session: Promise<LaneSession>;
  lastUsed: number;
}

interface Parked {
  readonly lane: string;
  readonly call: LaneCall;
  readonly timer: NodeJS.Timeout;
}

export class VirtualSessions {
  readonly #sessions: Sessions;
  readonly #now: () => number;
  readonly #states = new RequestStates();
  readonly #known = new Map<string, Known>();
  readonly #open = new Map<string, LaneSession>();
  readonly #parked = new Map<string, Parked>();
  readonly #sweep: NodeJS.Timeout;

  constructor(options: { sessions: Sessions; now?: () => number }) {
    this.#sessions = options.sessions;
    this.#now = options.now ?? Date.now;
    this.#sweep = setInterval(() => this.#endIdle(), SWEEP_EVERY_MS).unref();
  }

  /** Serves one request. The sink is settled exactly once, unless its signal aborts first. @throws MoorageError. */
  async request(arrival: Arrival, sink: CallSink): Promise<void> {
    const { message, envelope, signal } = arrival;
    const { method } = message;
    if (REMOVED_METHODS.has(method) || method.startsWith('tasks/')) throw methodNotFound(method);
    const reader: Reader = { id: message.id, sink, envelope, signal };
    if (isRetry(message) && this.#resume(arrival, reader)) return;
    const session = await this.#session(arrival);
    if (signal.aborted) return;
    arrival.reached(session.peer);
    if (method === 'server/discover') {
      sink.answer({ jsonrpc: '2.0', id: message.id, result: discoverResult(session.initialized) });
    } else if (method === 'subscriptions/listen') {
      await session.listen(message, reader);
    } else {
      await session.wantLog(envelope.logLevel);
      if (!signal.aborted) this.#call(arrival, session, reader);
    }
  }

  /** Of several sessions that use one process, somebody in whose name it can be asked what it lists. */
  laneOf(keys: readonly string[]): ChangedLane | undefined {
    return keys.map((key) => this.#known.get(key)?.view).find((view) => view !== undefined);
  }

  /** Whether the session that would serve a request is open and its process runs. */
  isAwake(arrival: Arrival): boolean {
    const peer = this.#open.get(keyOf(arrival))?.peer;
    return peer !== undefined && peer.asleep !== true;
  }

  /** Whether the process that a request would reach runs, be it that the session behind it is still to be opened. */
  runs(arrival: Arrival): boolean {
    const declared = legacyCapabilities(arrival.envelope.capabilities);
    return this.isAwake(arrival) || this.#sessions.runsShared(arrival.definition, declared);
  }

  /** Whether a request reaches the process that one of somebody's reaches; `by` is null for a session of a client. */
  meets(arrival: Arrival, by: Arrival | null): boolean {
    const declared = legacyCapabilities(arrival.envelope.capabilities);
    return isShared(arrival.definition, declared) || (by !== null && keyOf(arrival) === keyOf(by));
  }

  /** What a server said unasked to virtual sessions. */
  unasked(keys: readonly string[], message: JsonRpcMessage): void {
    for (const key of keys) this.#open.get(key)?.unasked(message);
  }

  /** Ends a lane's sessions. */
  end(lane: string): void {
    for (const [key, known] of this.#known) if (known.lane === lane) this.#end(key);
  }

  close(): void {
    clearInterval(this.#sweep);
    for (const key of [...this.#known.keys()]) this.#end(key);
    for (const { timer } of this.#parked.values()) clearTimeout(timer);
  }

  /** @returns whether a waiting call took the retry. @throws MoorageError `invalid_params` for a state that is not good. */
  #resume({ sender, message }: Arrival, reader: Reader): boolean {
    const { requestState, inputResponses } = message.params ?? {};
    if (requestState === undefined) return false;
    const sealed = this.#states.open(requestState, { ...sender, request: message }, this.#now());
    if (sealed.call === undefined) return false;
    const parked = this.#parked.get(sealed.call);
    if (!parked) throw badState();
    if (inputResponses !== undefined && !isRecord(inputResponses)) {
      throw new MoorageError('invalid_params', '"inputResponses" must be an object.');
    }
    parked.call.retry(reader, sealed.round, inputResponses ?? {});
    return true;
  }

  #call(arrival: Arrival, first: LaneSession, reader: Reader): void {
    const { sender, message } = arrival;
    const binding: Binding = { ...sender, request: message };
    const id = randomBytes(16).toString('base64url');
    let session = first;
    let again = 1;
    let counted = true;
    session.calls++;
    const forward = (sink: CallSink, signal: AbortSignal): void => {
      const fail = (error: MoorageError): void => {
        // The server lost the session before it took the request: nothing was done.
        if (error.code !== 'session_unknown' || again-- <= 0 || signal.aborted) {
          sink.fail(error);
          return;
        }
        this.#known.delete(session.key);
        const gone = session.peer.closed;
        gone
          .then(() => this.#session(arrival))
          .then(
            (reopened) => {
              session.calls--;
              session = reopened;
              session.calls++;
              forward(sink, signal);
            },
            (thrown: unknown) => sink.fail(thrown instanceof MoorageError ? thrown : error),
          );
      };
      const passed: CallSink = {
        get open() {
          return sink.open;
        },
        message: (said) => sink.message(said),
        answer: (answer) => sink.answer(answer),
        fail,
      };
      session.forward(message, passed, signal);
    };
    const call = new LaneCall(
      {
        method: message.method,
        serverInfo: session.initialized.serverInfo,
        forward,
        reply: (question, answer) => session.reply(question, answer),
        seal: (round) => {
          const expires = this.#now() + PARK_LIFE_MS;
          return this.#states.seal(round === undefined ? { round: 0, expires } : { call: id, round, expires }, binding);
        },
        mayPark: () => this.#mayPark(sender.lane, id),
        orphan: (question) => session.orphan(question),
        changed: () => queueMicrotask(() => changed()),
      },
      reader,
      INPUT_METHODS.has(message.method) ? session.takeOrphans() : [],
    );
    const changed = (): void => {
      this.#park(id, sender.lane, call);
      if (!call.over || !counted) return;
      counted = false;
      session.calls--;
    };
  }

  #mayPark(lane: string, id: string): boolean {
    if (this.#parked.has(id)) return true;
    if (this.#parked.size >= MAX_PARKED) return false;
    return [...this.#parked.values()].filter((parked) => parked.lane === lane).length < MAX_PARKED_PER_LANE;
  }

  /** Keeps a call for as long as it waits; each round has the full time. */
  #park(id: string, lane: string, call: LaneCall): void {
    clearTimeout(this.#parked.get(id)?.timer);
    this.#parked.delete(id);
    if (!call.parked) return;
    const timer = setTimeout(() => call.expire(), PARK_LIFE_MS).unref();
    this.#parked.set(id, { lane, call, timer });
  }

  #session(arrival: Arrival): Promise<LaneSession> {
    const key = keyOf(arrival);
    const known = this.#known.get(key);
    if (known) {
      known.lastUsed = this.#now();
      this.#sessions.touch(key);
      return known.session;
    }
    const session = this.#openSession(key, arrival);
    const opened: Known = {
      lane: arrival.sender.lane,
      view: changedLaneOf(arrival),
      session,
      lastUsed: this.#now(),
    };
    this.#known.set(key, opened);
    const forget = () => {
      if (this.#known.get(key) === opened) this.#known.delete(key);
    };
    session.then((each) => each.peer.closed.then(forget), forget);
    return session;
  }

  async #openSession(key: string, { definition, envelope }: Arrival): Promise<LaneSession> {
    const initialize: JsonRpcRequest = {
      jsonrpc: '2.0',
      id: 'initialize',
      method: 'initialize',
      params: {
        protocolVersion: LEGACY_REVISIONS[0],
        capabilities: legacyCapabilities(envelope.capabilities),
        clientInfo: envelope.clientInfo ?? { name: 'unknown', version: '0' },
      },
    };
    const { peer, initialized } = await this.#sessions.open(key, definition, initialize, []);
    if ('error' in initialized) {
      const { message } = modernError(initialized.error);
      throw new MoorageError('server_failed', `The server "${definition.name}" refuses to begin: ${message}`);
    }
    const session = new LaneSession(key, peer, initialized.result);
    this.#open.set(key, session);
    void peer.closed.then(() => {
      session.end();
      if (this.#open.get(key) === session) this.#open.delete(key);
    });
    return session;
  }

  #end(key: string): void {
    this.#known.delete(key);
    this.#open.get(key)?.end();
    this.#open.delete(key);
    this.#sessions.end(key);
  }

  #endIdle(): void {
    for (const [key, { lastUsed }] of this.#known) {
      const session = this.#open.get(key);
      if (session && !session.busy && this.#now() - lastUsed > IDLE_MS) this.#end(key);
    }
  }
}

/** A session is bound to what its client declared, so a lane has one for each set of capabilities. */
function keyOf({
  sender,
  definition,
  envelope,
}: {
  sender: Arrival['sender'];
  definition: ServerDefinition;
  envelope: Arrival['envelope'];
}): string {
  const declared = JSON.stringify(legacyCapabilities(envelope.capabilities));
  const digest = createHash('sha256')
    .update(JSON.stringify([sender.lane, definition.name, declared]))
    .digest('base64url');
  return `${PREFIX}${digest}`;
}
