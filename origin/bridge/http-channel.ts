/**
 * Owns the connection to a server that is reached over HTTP: Streamable HTTP of every revision, or HTTP+SSE of 2024-11-05.
 *
 * States: fresh, then `http` or `sse` (decided by the first request, with `transport: "auto"`), then closed. One session
 * at the server per channel where the server has sessions; a session that the server lost (404) closes the channel.
 * Each request has a transport of its own in the SDK's sense, so that every message is known to belong to its request and
 * giving one up closes its stream alone.
 *
 * Untrusted: everything the server sends, and its size (`bounded-fetch.ts`). The configured headers may be credentials:
 * they are never logged and never part of an error.
 */
import {
  SdkHttpError,
  SSEClientTransport,
  StreamableHTTPClientTransport,
  type Transport,
} from '@modelcontextprotocol/client';
import { MoorageError } from '../../shared/errors.ts';
import {
  idOfBadAnswer,
  isRequest,
  isResponse,
  type JsonRpcMessage,
  type JsonRpcRequest,
  type JsonRpcResponse,
  parseMessage,
} from '../../shared/jsonrpc.ts';
import type { Log } from '../log.ts';
import { boundedFetch } from './bounded-fetch.ts';
import { badAnswer, type Channel, type ChannelEnd, type ChannelEvents, type SendOptions } from './channel.ts';
import { failureOf, rpcErrorIn, speaksOnlySse } from './http-failure.ts';

export interface HttpChannelOptions {
  readonly server: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly transport: 'auto' | 'http' | 'sse';
  readonly log: Log;
}

/** How long the server may take to name its endpoint (HTTP+SSE), in milliseconds. */
const ENDPOINT_WITHIN_MS = 15_000;
/** How long ending a session at the server may take, in milliseconds. */
const END_WITHIN_MS = 2_000;
/** A broken stream is taken up again with `Last-Event-ID`, where the server numbers its events. */
const REQUEST_RETRIES = {
  initialReconnectionDelay: 500,
  maxReconnectionDelay: 10_000,
  reconnectionDelayGrowFactor: 2,
  maxRetries: 6,
};
/** The stream of what the server says unasked is opened again for as long as the session lives. */
const UNASKED_RETRIES = { ...REQUEST_RETRIES, maxReconnectionDelay: 30_000, maxRetries: Number.MAX_SAFE_INTEGER };

export class HttpChannel implements Channel {
  readonly #options: HttpChannelOptions;
  readonly #events: ChannelEvents;
  readonly #requests = new Map<number, { transport: StreamableHTTPClientTransport; abort: AbortController }>();
  #sse: Promise<SSEClientTransport> | undefined;
  /** Carries notifications, answers and the stream of what is said unasked. */
  #main: StreamableHTTPClientTransport | undefined;
  #sessionId: string | undefined;
  #revision: string | undefined;
  #unread = 0;
  #open = true;
  #ended: (end: ChannelEnd) => void = () => undefined;
  readonly closed: Promise<ChannelEnd>;

  constructor(options: HttpChannelOptions, events: ChannelEvents) {
    this.#options = options;
    this.#events = events;
    this.closed = new Promise((resolve) => {
      this.#ended = resolve;
    });
    if (options.transport === 'sse') this.#connectSse();
  }

  get unread(): number {
    return this.#unread;
  }

  send(message: JsonRpcMessage, options: SendOptions = {}): void {
    if (!this.#open) return;
    const bytes = Buffer.byteLength(JSON.stringify(message));
    this.#unread += bytes;
    void this.#deliver(message, options).finally(() => {
      this.#unread -= bytes;
    });
  }

  abandon(id: number): boolean {
    const request = this.#requests.get(id);
    if (!request) return false;
    this.#requests.delete(id);
    request.abort.abort();
    void request.transport.close();
    return true;
  }

  async end(): Promise<void> {
    if (this.#open && this.#main && this.#sessionId !== undefined) {
      const late = new Promise<void>((resolve) => setTimeout(resolve, END_WITHIN_MS).unref());
      await Promise.race([this.#main.terminateSession().catch(() => undefined), late]);
    }
    await this.#close(`The connection to server "${this.#options.server}" was closed`, 'closed');
  }

  async #deliver(message: JsonRpcMessage, options: SendOptions): Promise<void> {
    if (this.#sse) return await this.#post(await this.#sse.catch(() => undefined), message);
    if (isRequest(message)) return await this.#request(message, options);
    this.#main ??= this.#connectMain();
    await this.#post(this.#main, message);
  }

  async #request(message: JsonRpcRequest, { headers }: SendOptions): Promise<void> {
    const id = message.id as number;
    const abort = new AbortController();
    const transport = this.#streamable(REQUEST_RETRIES);
    this.#requests.set(id, { transport, abort });
    transport.onmessage = (received) => {
      // Named before the message is passed on: what follows it needs both.
      if (message.method === 'initialize') this.#learn(transport, received as JsonRpcMessage);
      this.#received(received, id);
    };
    await transport.start();
    try {
      await transport.send(message, {
        requestSignal: abort.signal,
        onRequestStreamEnd: () => this.#streamEnded(id),
        ...(headers ? { headers } : {}),
      });
    } catch (error) {
      this.#refused(message, error);
    }
  }

  /** A message that needs no answer of its own, or any message over HTTP+SSE. */
  async #post(transport: Transport | undefined, message: JsonRpcMessage): Promise<void> {
    if (!transport || !this.#open) return;
    try {
      await transport.send(message as Parameters<Transport['send']>[0]);
    } catch (error) {
      if (isRequest(message)) this.#lost(message.id as number, failureOf(this.#options.server, error));
      this.#sessionEnded(error);
    }
  }

  #refused(message: JsonRpcRequest, error: unknown): void {
    const id = message.id as number;
    if (!this.#requests.delete(id) || !this.#open) return;
    const answer = rpcErrorIn(error, id);
    const first = message.method === 'initialize' && this.#options.transport === 'auto';
    if (first && speaksOnlySse(error, answer)) {
      this.#connectSse();
      this.send(message);
      return;
    }
    const gone = this.#sessionEnded(error);
    if (gone) this.#events.lost(id, gone);
    else if (answer) this.#received(answer, id);
    else this.#events.lost(id, failureOf(this.#options.server, error));
  }

  /** Closes the channel when the server says that it lost the session (2025-11-25, basic/transports, "Session Management"). */
  #sessionEnded(error: unknown): MoorageError | undefined {
    if (this.#sessionId === undefined || !(error instanceof SdkHttpError) || error.status !== 404) return undefined;
    const what = `The server "${this.#options.server}" has ended its session`;
    void this.#close(what, 'session_ended');
    return new MoorageError('session_unknown', `${what}.`);
  }

  #received(value: unknown, via?: number): void {
    let message: JsonRpcMessage;
    try {
      message = parseMessage(value);
    } catch {
      this.#options.log.debug(`server ${this.#options.server}: a message that is not JSON-RPC was dropped`);
      const answered = via === undefined ? undefined : idOfBadAnswer(value);
      if (answered !== undefined && answered === via && this.abandon(via))
        this.#lost(via, badAnswer(this.#options.server));
      return;
    }
    if (via !== undefined && isResponse(message)) {
      // A stream answers its own request and no other.
      if (message.id !== via && message.id !== null) return;
      message = { ...message, id: via } as JsonRpcResponse;
      this.abandon(via);
    }
    if (this.#open) this.#events.message(message, via);
  }

  #learn(transport: StreamableHTTPClientTransport, message: JsonRpcMessage): void {
    if (!isResponse(message) || !('result' in message)) return;
    this.#sessionId = transport.sessionId;
    const revision = message.result.protocolVersion;
    if (typeof revision === 'string') this.#revision = revision;
  }

  #streamEnded(id: number): void {
    if (this.#requests.delete(id)) this.#events.lost(id, brokenOff(this.#options.server));
  }

  #lost(id: number, error: MoorageError): void {
    if (this.#open) this.#events.lost(id, error);
  }

  #streamable(reconnectionOptions: typeof REQUEST_RETRIES): StreamableHTTPClientTransport {
    return new StreamableHTTPClientTransport(new URL(this.#options.url), {
      requestInit: { headers: { ...this.#options.headers } },
      fetch: boundedFetch,
      reconnectionOptions,
      ...(this.#sessionId === undefined ? {} : { sessionId: this.#sessionId }),
      ...(this.#revision === undefined ? {} : { protocolVersion: this.#revision }),
    });
  }

  #connectMain(): StreamableHTTPClientTransport {
    const main = this.#streamable(UNASKED_RETRIES);
    main.onmessage = (message) => this.#received(message);
    main.onerror = (error) => void this.#sessionEnded(error);
    void main.start();
    return main;
  }

  #connectSse(): void {
    const transport = new SSEClientTransport(new URL(this.#options.url), {
      requestInit: { headers: { ...this.#options.headers } },
      fetch: boundedFetch,
    });
    transport.onmessage = (message) => this.#received(message);
    let late: NodeJS.Timeout | undefined;
    const deadline = new Promise<never>((_resolve, reject) => {
      late = setTimeout(() => reject(new Error('No endpoint in time.')), ENDPOINT_WITHIN_MS).unref();
    });
    const connecting = Promise.race([transport.start(), deadline]).finally(() => clearTimeout(late));
    this.#sse = connecting.then(() => {
      // The endpoint is the session: a stream that comes back is another one.
      transport.onerror = () =>
        void this.#close(brokenOff(this.#options.server).message.replace(/\.$/, ''), 'broken_off');
      return transport;
    });
    this.#sse.catch((error: unknown) => {
      void transport.close();
      void this.#close(failureOf(this.#options.server, error).message.replace(/\.$/, ''), 'unreachable');
    });
  }

  async #close(what: string, cause: string): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    for (const id of [...this.#requests.keys()]) this.abandon(id);
    this.#ended({ what, data: { cause } });
    await this.#main?.close();
    await this.#sse?.then(
      (transport) => transport.close(),
      () => undefined,
    );
  }
}

const brokenOff = (server: string): MoorageError =>
  new MoorageError(
    'outcome_unknown',
    `The connection to server "${server}" broke before it answered. Outcome unknown: check before you repeat it.`,
    { cause: 'broken_off', retryable: false },
  );
