/**
 * Owns one lane's session at a server that has sessions: a *virtual session*, opened in the client's name and kept behind
 * its requests. It is bound to what the client declared it can be asked, as a session is.
 *
 * Invariants: the server is told of a log level only when a request wants more than it knows; a resource is subscribed to
 * once, whoever listens, and given up with the last listener; questions that no call could carry wait, bounded, for the
 * next one that can.
 */
import { MoorageError } from '../../../shared/errors.ts';
import {
  isNotification,
  isRequest,
  type JsonRpcMessage,
  type JsonRpcNotification,
  type JsonRpcRequest,
} from '../../../shared/jsonrpc.ts';
import { isRecord, LOG_LEVELS, type LogLevel } from '../../../shared/rev-2026-07-28.ts';
import type { CallSink, SessionPeer } from '../peer.ts';
import { legacyRequest, neededFor } from '../to-modern.ts';
import { NOT_ASKABLE, type Reader } from './call.ts';
import { filterOf, Listen } from './listen.ts';

const MAX_LISTENS = 100;
const MAX_ORPHANS = 16;
/** How long a server may take to acknowledge a log level or a subscription, in milliseconds. */
const OWN_REQUEST_WITHIN_MS = 5_000;
/** How long a question waits for a call that can carry it, in milliseconds: most servers give up after a minute. */
const ORPHAN_LIFE_MS = 50_000;

/** The log level of each server process: sessions that share one share its level. */
const levels = new WeakMap<SessionPeer, LogLevel>();

export class LaneSession {
  readonly key: string;
  readonly peer: SessionPeer;
  readonly initialized: Readonly<Record<string, unknown>>;
  readonly #listens = new Set<Listen>();
  readonly #subscribers = new Map<string, number>();
  #orphans: { readonly question: JsonRpcRequest; readonly timer: NodeJS.Timeout }[] = [];
  #own = 0;
  /** Calls that are not over. */
  calls = 0;

  constructor(key: string, peer: SessionPeer, initialized: Readonly<Record<string, unknown>>) {
    this.key = key;
    this.peer = peer;
    this.initialized = initialized;
  }

  get busy(): boolean {
    return this.calls > 0 || this.#listens.size > 0;
  }

  /** Questions that wait for a call, which now carries them. */
  takeOrphans(): JsonRpcRequest[] {
    const orphans = this.#orphans;
    this.#orphans = [];
    for (const { timer } of orphans) clearTimeout(timer);
    return orphans.map(({ question }) => question);
  }

  /** Passes a request on in the form that the server knows. */
  forward(message: JsonRpcRequest, sink: CallSink, signal: AbortSignal): void {
    this.peer.request(this.key, legacyRequest(message), sink, { signal });
  }

  reply(id: string, answer: { result: unknown } | { error: { code: number; message: string } }): void {
    this.peer.notify(this.key, { jsonrpc: '2.0', id, ...answer } as JsonRpcMessage);
  }

  /** Something the server said outside of any call of this lane. */
  unasked(message: JsonRpcMessage): void {
    if (isRequest(message)) this.orphan(message);
    else if (isNotification(message)) for (const listen of this.#listens) listen.hear(message as JsonRpcNotification);
  }

  orphan(question: JsonRpcRequest): void {
    if (!neededFor(question) || this.#orphans.length >= MAX_ORPHANS) {
      this.reply(String(question.id), NOT_ASKABLE);
      return;
    }
    const timer = setTimeout(() => {
      this.#orphans = this.#orphans.filter((each) => each.question !== question);
      this.reply(String(question.id), NOT_ASKABLE);
    }, ORPHAN_LIFE_MS).unref();
    this.#orphans.push({ question, timer });
  }

  /** Makes the server say as much as a request wants to hear. Requests that want less are filtered on the way out. */
  async wantLog(level: LogLevel | undefined): Promise<void> {
    if (level === undefined || !isRecord(this.#capabilities.logging)) return;
    const known = levels.get(this.peer);
    if (known !== undefined && LOG_LEVELS.indexOf(known) <= LOG_LEVELS.indexOf(level)) return;
    levels.set(this.peer, level);
    await this.#ask('logging/setLevel', { level });
  }

  /** Serves one `subscriptions/listen` until its connection closes or the server ends. */
  async listen(message: JsonRpcRequest, { sink, signal }: Reader): Promise<void> {
    const filter = filterOf(message, this.#capabilities);
    // A machine may take longer to wake than a server may take to agree.
    if (filter.uris.length > 0) await this.peer.awake?.();
    if (this.#listens.size >= MAX_LISTENS) {
      throw new MoorageError('overloaded', `At most ${MAX_LISTENS} subscriptions are open at a time.`);
    }
    const listen = new Listen(message.id, sink, filter);
    this.#listens.add(listen);
    const agreed = await Promise.all(filter.uris.map(async (uri) => ((await this.#subscribe(uri)) ? [uri] : [])));
    const uris = agreed.flat();
    const close = () => {
      this.#listens.delete(listen);
      for (const uri of uris) this.#unsubscribe(uri);
    };
    if (signal.aborted) {
      close();
      return;
    }
    signal.addEventListener('abort', close, { once: true });
    listen.acknowledge(uris);
  }

  /** The server has ended, or the lane has. */
  end(): void {
    for (const listen of this.#listens) listen.end();
    this.#listens.clear();
    for (const { timer } of this.#orphans) clearTimeout(timer);
    this.#orphans = [];
  }

  get #capabilities(): Record<string, unknown> {
    return isRecord(this.initialized.capabilities) ? this.initialized.capabilities : {};
  }

  async #subscribe(uri: string): Promise<boolean> {
    const others = this.#subscribers.get(uri) ?? 0;
    this.#subscribers.set(uri, others + 1);
    if (others > 0 || (await this.#ask('resources/subscribe', { uri }))) return true;
    this.#forget(uri);
    return false;
  }

  #unsubscribe(uri: string): void {
    if (this.#forget(uri) === 0) void this.#ask('resources/unsubscribe', { uri });
  }

  #forget(uri: string): number {
    const left = (this.#subscribers.get(uri) ?? 1) - 1;
    if (left > 0) this.#subscribers.set(uri, left);
    else this.#subscribers.delete(uri);
    return left;
  }

  /** A request of our own. @returns whether the server agreed in time. */
  async #ask(method: string, params: Record<string, unknown>): Promise<boolean> {
    const signal = AbortSignal.timeout(OWN_REQUEST_WITHIN_MS);
    const late = new Promise<false>((resolve) => signal.addEventListener('abort', () => resolve(false)));
    const asked = new Promise<boolean>((resolve) => {
      this.peer.request(
        this.key,
        { jsonrpc: '2.0', id: `own-${++this.#own}`, method, params },
        {
          open: false,
          message: () => undefined,
          answer: (answer) => resolve('result' in answer),
          fail: () => resolve(false),
        },
        { signal },
      );
    });
    return await Promise.race([asked, late]);
  }
}
