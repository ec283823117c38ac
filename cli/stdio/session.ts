/**
 * Owns one stdio client's session at a router, which outlives what it runs on.
 *
 * When the router has moved, the session is sought at the new address. When the session is gone, a new one is opened with
 * the client's own initialize, log level and subscriptions; the client does not notice.
 *
 * Invariants: one session at a time; at most one is being opened; the exchanges of a former one end by themselves.
 */
import { MoorageError } from '../../shared/errors.ts';
import {
  isResponse,
  type JsonRpcMessage,
  type JsonRpcRequest,
  type JsonRpcResponse,
  type RequestId,
} from '../../shared/jsonrpc.ts';
import { Remote, reasonOf } from './remote.ts';

export interface SessionOptions {
  readonly server: string;
  /** Base URL of the router right now. Rejects with a MoorageError that the client may see. */
  readonly locate: () => Promise<string>;
  /** Sent with every request to the router. */
  readonly headers: Readonly<Record<string, string>>;
  readonly onMessage: (remote: Remote, message: JsonRpcMessage) => void;
  /** Everything that was open in it is gone. */
  readonly onLost: (remote: Remote) => void;
  readonly log: (line: string) => void;
}

/** What a new session must be told before the client can go on in it. */
interface Memory {
  initialize: Record<string, unknown> | undefined;
  logLevel: unknown;
  readonly subscriptions: Set<unknown>;
}

export class Session {
  readonly #options: SessionOptions;
  readonly #memory: Memory = { initialize: undefined, logLevel: undefined, subscriptions: new Set() };
  /** Our own requests, by their ids. */
  readonly #own = new Map<RequestId, (answer: JsonRpcResponse) => void>();
  #ownIds = 0;
  #remote: Remote | undefined;
  #outside: Remote | undefined;
  #lost = false;
  #renewing: Promise<Remote> | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** The session at the place where it is now. @throws MoorageError, or what `failureOf` reads. */
  async current(): Promise<Remote> {
    const url = await this.#endpoint();
    if (this.#remote?.url.href === url.href && !this.#lost) return this.#remote;
    this.#renewing ??= this.#renew(url).finally(() => {
      this.#renewing = undefined;
    });
    return await this.#renewing;
  }

  /** Where the client's initialize goes. A session that it had is ended. @throws MoorageError. */
  async fresh(): Promise<Remote> {
    const url = await this.#endpoint();
    const former = this.#remote;
    this.#remote = this.#open(url);
    this.#lost = false;
    this.#memory.initialize = undefined;
    if (former) void former.end();
    return this.#remote;
  }

  /** Where messages go that need no session (2026-07-28). @throws MoorageError. */
  async outside(): Promise<Remote> {
    const url = await this.#endpoint();
    if (this.#outside?.url.href !== url.href) this.#outside = this.#open(url);
    return this.#outside;
  }

  /** The client's initialize succeeded. */
  opened(remote: Remote, { params }: JsonRpcRequest, protocolVersion: string): void {
    this.#memory.initialize = params;
    remote.setProtocolVersion(protocolVersion);
  }

  /** Keeps what a later session must be told. */
  remember({ method, params }: JsonRpcRequest): void {
    if (method === 'logging/setLevel') this.#memory.logLevel = params?.level;
    if (method === 'resources/subscribe') this.#memory.subscriptions.add(params?.uri);
    if (method === 'resources/unsubscribe') this.#memory.subscriptions.delete(params?.uri);
  }

  /** The router does not know the session any more. */
  lose(remote: Remote): void {
    if (remote !== this.#remote || this.#lost) return;
    this.#lost = true;
    remote.deafen();
    this.#options.onLost(remote);
  }

  async end(): Promise<void> {
    await this.#outside?.close();
    await (this.#lost ? this.#remote?.close() : this.#remote?.end());
  }

  async #endpoint(): Promise<URL> {
    return new URL(`${await this.#options.locate()}/${this.#options.server}/mcp`);
  }

  /** Another way to the session that is there, or another session. */
  async #renew(url: URL): Promise<Remote> {
    const former = this.#remote;
    const { initialize } = this.#memory;
    const { session: id, protocolVersion } = former ?? {};
    let remote: Remote;
    if (initialize === undefined) {
      remote = this.#open(url);
    } else if (!this.#lost && id !== undefined && protocolVersion !== undefined) {
      this.#options.log(`the router is at ${url.origin} now`);
      remote = this.#open(url, { id, protocolVersion });
      remote.listen();
    } else {
      remote = await this.#reopen(url, initialize);
      this.#options.log('the session was gone: opened a new one');
    }
    this.#remote = remote;
    this.#lost = false;
    former?.deafen();
    return remote;
  }

  async #reopen(url: URL, initialize: Record<string, unknown>): Promise<Remote> {
    const remote = this.#open(url);
    const answer = await this.#ask(remote, 'initialize', initialize);
    if (!('result' in answer)) {
      throw new MoorageError('server_failed', `The session cannot be opened again: ${answer.error.message}`);
    }
    remote.setProtocolVersion(String(answer.result.protocolVersion));
    await remote.send({ jsonrpc: '2.0', method: 'notifications/initialized' });
    remote.listen();
    const { logLevel, subscriptions } = this.#memory;
    if (logLevel !== undefined) await this.#ask(remote, 'logging/setLevel', { level: logLevel });
    for (const uri of subscriptions) await this.#ask(remote, 'resources/subscribe', { uri });
    return remote;
  }

  /** A request of our own. Rejects when it gets no answer. */
  async #ask(remote: Remote, method: string, params: Record<string, unknown>): Promise<JsonRpcResponse> {
    const id = `moorage-${++this.#ownIds}`;
    const { promise, resolve, reject } = Promise.withResolvers<JsonRpcResponse>();
    this.#own.set(id, resolve);
    const onEnd = () =>
      reject(new MoorageError('edge_away', 'The router broke off while the session was opened again. Try once more.'));
    try {
      await remote.send({ jsonrpc: '2.0', id, method, params }, { onEnd });
      return await promise;
    } finally {
      this.#own.delete(id);
    }
  }

  #open(url: URL, session?: { id: string; protocolVersion: string }): Remote {
    const { headers, log, onMessage } = this.#options;
    const remote: Remote = new Remote({
      url,
      headers,
      ...(session ? { session } : {}),
      onMessage: (message) => {
        const own = isResponse(message) && message.id !== null ? this.#own.get(message.id) : undefined;
        if (own) own(message as JsonRpcResponse);
        else onMessage(remote, message);
      },
      onLost: () => {
        this.lose(remote);
        // At once: what the server says unasked would be missed until the next request.
        this.current().catch((error: unknown) => log(`the session cannot be opened again yet: ${reasonOf(error)}`));
      },
      log,
    });
    return remote;
  }
}
