/**
 * Owns one session of a client at a server that has none (2026-07-28): what the server would have remembered is
 * remembered here and goes along with every request.
 *
 * Kept: what the client declared, its log level, what it subscribed to. `initialize` is answered from `server/discover`;
 * `ping`, `logging/setLevel` and `resources/subscribe` are answered here. The process behind may come and go: the session
 * does not notice.
 */
import { randomBytes } from 'node:crypto';
import { MoorageError } from '../../../shared/errors.ts';
import {
  isRequest,
  isResponse,
  type JsonRpcMessage,
  type JsonRpcRequest,
  type JsonRpcResponse,
} from '../../../shared/jsonrpc.ts';
import { isRecord, LOG_LEVELS, type LogLevel, META, REMOVED_NOTIFICATIONS } from '../../../shared/rev-2026-07-28.ts';
import type { ServerDefinition } from '../../server.ts';
import type { ModernPeers } from '../modern-peers.ts';
import type { CallSink, SessionPeer } from '../peer.ts';
import { envelopeOf, initializeResult, modernRequest } from '../to-legacy.ts';
import { StatelessCall } from './call.ts';
import { Listening } from './listening.ts';

export interface StatelessSessionOptions {
  readonly session: string;
  readonly definition: ServerDefinition;
  readonly initialize: JsonRpcRequest;
  readonly peers: ModernPeers;
  /** What the server says outside of any call. */
  readonly unasked: (message: JsonRpcMessage) => void;
}

/** Calls of one session in flight, at most. */
const MAX_CALLS = 1_000;
/** What a server logs for a session that never said a level (it may decide: 2025-11-25, server/utilities/logging). */
const DEFAULT_LEVEL: LogLevel = 'info';

export class StatelessSession implements SessionPeer {
  /** A server without sessions lists the same to all. */
  readonly listsChanged = false;
  readonly #options: StatelessSessionOptions;
  readonly #nonce = randomBytes(6).toString('base64url');
  readonly #calls = new Set<StatelessCall>();
  readonly #listening: Listening;
  #capabilities: Record<string, unknown> = {};
  #level: LogLevel | undefined;
  #left: () => void = () => undefined;
  readonly closed: Promise<void>;

  constructor(options: StatelessSessionOptions) {
    this.#options = options;
    this.closed = new Promise((resolve) => {
      this.#left = resolve;
    });
    this.#listening = new Listening({
      listen: async (message, sink, signal) => {
        const peer = await this.#peer();
        peer.request(options.session, modernRequest(message, this.#envelope()), sink, { signal });
      },
      heard: options.unasked,
    });
  }

  /** What would have to be started or woken to answer. */
  get asleep(): boolean {
    return !this.#options.peers.isAwake(this.#options.definition, this.#options.session);
  }

  /** The answer to `initialize`. @throws MoorageError when the server cannot be started or reached. */
  async open(): Promise<JsonRpcResponse> {
    const { session, definition, initialize } = this.#options;
    const peer = await this.#peer();
    const discover = modernRequest({ jsonrpc: '2.0', id: 'discover', method: 'server/discover' }, this.#envelope());
    const discovered = await peer.ask(session, discover);
    if ('error' in discovered) return { ...discovered, id: initialize.id };
    const result = initializeResult(definition.name, initialize, discovered.result);
    if (isRecord(result.capabilities)) this.#capabilities = result.capabilities;
    return { jsonrpc: '2.0', id: initialize.id, result };
  }

  request(_session: string, message: JsonRpcRequest, sink: CallSink): void {
    const answer = (result: Record<string, unknown>) => sink.answer({ jsonrpc: '2.0', id: message.id, result });
    switch (message.method) {
      case 'ping':
        answer({});
        return;
      case 'logging/setLevel': {
        const level = LOG_LEVELS.find((known) => known === message.params?.level);
        if (level === undefined) {
          sink.fail(new MoorageError('invalid_params', `"level" is one of ${LOG_LEVELS.join(', ')}.`));
          return;
        }
        this.#level = level;
        answer({});
        return;
      }
      case 'resources/subscribe':
      case 'resources/unsubscribe':
        this.#subscribe(message).then(
          () => answer({}),
          (thrown: unknown) => sink.fail(asError(thrown)),
        );
        return;
      default:
        this.#call(message, sink);
    }
  }

  notify(_session: string, message: JsonRpcMessage): void {
    if (isRequest(message)) throw new TypeError('A request needs a sink: use request().');
    if (isResponse(message)) {
      for (const call of this.#calls) if (call.answered(message)) return;
    } else if (message.method === 'notifications/initialized') {
      this.#listening.start(this.#capabilities);
    } else if (message.method === 'notifications/cancelled') {
      for (const call of this.#calls) if (call.id === message.params?.requestId) call.cancel();
    } else if (!REMOVED_NOTIFICATIONS.has(message.method)) {
      this.#peer().then(
        (peer) => peer.notify(this.#options.session, message),
        () => undefined,
      );
    }
  }

  leave(): void {
    this.#listening.end();
    for (const call of this.#calls) call.cancel();
    void this.#options.peers.end(this.#options.definition, this.#options.session);
    this.#left();
  }

  #peer() {
    return this.#options.peers.get(this.#options.definition, this.#options.session);
  }

  #envelope(): Record<string, unknown> {
    const level = this.#level ?? (isRecord(this.#capabilities.logging) ? DEFAULT_LEVEL : undefined);
    return { ...envelopeOf(this.#options.initialize), ...(level === undefined ? {} : { [META.logLevel]: level }) };
  }

  async #subscribe({ method, params }: JsonRpcRequest): Promise<void> {
    const uri = params?.uri;
    if (typeof uri !== 'string') throw new MoorageError('invalid_params', '"uri" must be text.');
    if (method === 'resources/unsubscribe') this.#listening.unsubscribe(uri);
    else await this.#listening.subscribe(uri);
  }

  #call(message: JsonRpcRequest, sink: CallSink): void {
    if (this.#calls.size >= MAX_CALLS) {
      sink.fail(
        new MoorageError('overloaded', `This session has ${MAX_CALLS} calls in flight. Try again in a moment.`),
      );
      return;
    }
    const { session, initialize, unasked } = this.#options;
    const declared = initialize.params?.capabilities;
    const call = new StatelessCall({
      message,
      sink,
      nonce: this.#nonce,
      declared: isRecord(declared) ? declared : {},
      unasked,
      send: async (params, inner, signal) => {
        const peer = await this.#peer();
        peer.request(session, modernRequest(message, this.#envelope(), params), inner, { signal });
      },
      over: () => void this.#calls.delete(call),
    });
    this.#calls.add(call);
    call.start();
  }
}

const asError = (thrown: unknown): MoorageError =>
  thrown instanceof MoorageError ? thrown : new MoorageError('internal', 'The request could not be passed on.');
