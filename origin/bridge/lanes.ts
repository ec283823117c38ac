/**
 * Owns the requests of the era without sessions: which channel each goes to.
 *
 * A *lane* is the stable key of principal and server that the edge puts into the grant. A server that speaks 2026-07-28
 * gets every request as it came, all lanes on one channel (one per lane with `process: "session"`); one that has sessions
 * gets a virtual one (`lane/`). A lane needs no opening and is never lost: what ended is replaced at the next request.
 *
 * A `subscriptions/listen` that shall wake nobody and whose process does not run is parked until somebody's request reaches
 * that process: before the request where both are of one lane, so that what it changes is heard.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage, JsonRpcRequest, JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { type Envelope, parseEnvelope } from '../../shared/rev-2026-07-28.ts';
import { isHttpDefinition, type ServerDefinition } from '../server.ts';
import { LISTEN } from './correlate-modern.ts';
import type { Era, Eras } from './eras.ts';
import { type ListChanged, ListWatch } from './lane/list-watch.ts';
import { ParameterCheck } from './lane/parameter-check.ts';
import { ParkedListens } from './lane/parked-listens.ts';
import type { VirtualSessions } from './lane/virtual-sessions.ts';
import type { ModernPeers } from './modern-peers.ts';
import type { CallSink, SessionPeer } from './peer.ts';

/** Who sends a request, as the grant says. */
export interface Sender {
  readonly principal: string;
  readonly lane: string;
}

/** One request on its way. `signal` aborts when its client is gone. */
export interface Arrival {
  readonly sender: Sender;
  readonly definition: ServerDefinition;
  readonly message: JsonRpcRequest;
  readonly envelope: Envelope;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** False: only a process that is awake shall answer. */
  readonly wake: boolean;
  /** Called with what will answer, before it is asked. */
  readonly reached: (peer: SessionPeer) => void;
}

export class Lanes {
  readonly #peers: ModernPeers;
  readonly #eras: Eras;
  readonly #virtual: VirtualSessions;
  readonly #watch: ListWatch;
  readonly #parameters = new ParameterCheck();
  readonly #parked = new ParkedListens();

  constructor(options: { peers: ModernPeers; eras: Eras; virtual: VirtualSessions; changed: ListChanged }) {
    this.#watch = new ListWatch(options.changed);
    this.#peers = options.peers;
    this.#eras = options.eras;
    this.#virtual = options.virtual;
  }

  /**
   * Passes a request on. The sink is settled exactly once, unless `signal` aborts first. @throws MoorageError;
   * `session_unknown` where `wake` is false and nothing is awake that could answer.
   */
  async request(arrival: Omit<Arrival, 'envelope'>, sink: CallSink): Promise<void> {
    const enveloped = { ...arrival, envelope: parseEnvelope(arrival.message.params) };
    if (!arrival.wake && arrival.message.method === LISTEN) {
      if (!this.#runs(enveloped)) return this.#parked.park(enveloped, sink);
    } else if (!arrival.wake && !this.#isAwake(enveloped)) {
      throw new MoorageError('session_unknown', 'No process of this lane is awake.');
    }
    const era = await this.#eras.of(arrival.definition);
    const seesHeaders = era === 'modern' && isHttpDefinition(arrival.definition);
    const mismatch = seesHeaders
      ? undefined
      : await this.#parameters.mismatch(enveloped, (message, signal) =>
          this.#ask({ ...enveloped, message, signal }, era),
        );
    if (mismatch) throw mismatch;
    await this.#unpark(arrival.definition, enveloped);
    await this.#dispatch(enveloped, sink, era);
    // Those that came while the process was being reached.
    void this.#unpark(arrival.definition, enveloped);
  }

  /** A request of a client with a session has reached the server's process. */
  reached(definition: ServerDefinition): void {
    void this.#unpark(definition, null);
  }

  /** Passes on what waits for the process that a request reaches. Resolves when those of its own lane are. */
  async #unpark(definition: ServerDefinition, by: Arrival | null): Promise<void> {
    if (!this.#parked.has(definition)) return;
    const era = await this.#eras.of(definition).catch(() => undefined);
    if (era === undefined) return;
    const meets = (arrival: Arrival) => {
      if (era === 'legacy') return this.#virtual.meets(arrival, by);
      return definition.entry.process !== 'session' || arrival.sender.lane === by?.sender.lane;
    };
    const passing = this.#parked.take(definition, meets).map(({ arrival, sink }) => ({
      lane: arrival.sender.lane,
      passed: this.#dispatch({ ...arrival, definition }, sink, era).catch((thrown) => sink.fail(asError(thrown))),
    }));
    await Promise.all(passing.filter(({ lane }) => lane === by?.sender.lane).map(({ passed }) => passed));
  }

  /** Whether a listen can be passed on without starting or waking anything. */
  #runs(arrival: Arrival): boolean {
    if (isHttpDefinition(arrival.definition)) return true;
    return this.#eras.known(arrival.definition) === 'legacy' ? this.#virtual.runs(arrival) : this.#isAwake(arrival);
  }

  #isAwake(arrival: Arrival): boolean {
    const { definition, sender } = arrival;
    switch (this.#eras.known(definition)) {
      case 'legacy':
        return this.#virtual.isAwake(arrival);
      case 'modern':
        return this.#peers.isAwake(definition, sender.lane);
      default:
        return false;
    }
  }

  async #dispatch(arrival: Arrival, sink: CallSink, era: Era): Promise<void> {
    if (era === 'legacy') await this.#virtual.request(arrival, sink);
    else await this.#pass(arrival, sink, 1);
  }

  /** A request of our own in the client's name. */
  #ask(arrival: Arrival, era: Era): Promise<JsonRpcResponse> {
    return new Promise((resolve, reject) => {
      const sink: CallSink = { open: false, message: () => undefined, answer: resolve, fail: reject };
      this.#dispatch(arrival, sink, era).catch(reject);
    });
  }

  /** A notification of a client. The core protocol has none; those of extensions pass to a server that is there. */
  async notify({ lane }: Sender, definition: ServerDefinition, message: JsonRpcMessage): Promise<void> {
    const peer = await this.#peers.known(definition, lane);
    peer?.notify(lane, message);
  }

  /** Ends what is kept for a lane alone. */
  async end({ lane }: Sender, definition: ServerDefinition): Promise<void> {
    this.#virtual.end(lane);
    await this.#peers.end(definition, lane);
  }

  async #pass(arrival: Arrival, sink: CallSink, again: number): Promise<void> {
    const { sender, definition, message, headers, signal } = arrival;
    const peer = await this.#peers.get(definition, sender.lane);
    // A process that all share lists the same to all.
    if (definition.entry.process === 'session') arrival.reached(peer);
    this.#watch.follow(peer, arrival);
    const lost = (error: MoorageError): boolean => error.code === 'session_unknown' && again > 0;
    peer.request(
      sender.lane,
      message,
      {
        get open() {
          return sink.open;
        },
        message: (said) => sink.message(said),
        answer: (response) => sink.answer(response),
        // The channel ended before it took the request: nothing was done.
        fail: (error) => {
          if (lost(error)) this.#pass(arrival, sink, again - 1).catch((thrown: unknown) => sink.fail(asError(thrown)));
          else sink.fail(error);
        },
      },
      { signal, headers },
    );
  }
}

const asError = (thrown: unknown): MoorageError =>
  thrown instanceof MoorageError ? thrown : new MoorageError('internal', 'The request could not be passed on.');
