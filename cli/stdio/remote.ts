/**
 * Owns one HTTP session with a router's endpoint, on two of the SDK's transports: one for what the client sends and the
 * answers to it, one for the stream on which the server speaks unasked. They differ in patience: a call whose stream is
 * lost is given up soon, the server's stream is sought for as long as the session lives.
 *
 * Invariants: `send` settles or `onEnd` is called, so that a request is never without an end; nothing is repeated here.
 */
import {
  SdkHttpError,
  StreamableHTTPClientTransport,
  type StreamableHTTPReconnectionOptions,
} from '@modelcontextprotocol/client';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

/** What an exchange failed of. */
export type Failure =
  /** The session is gone: nothing was done. */
  | { readonly kind: 'lost' }
  /** The far side answered with this status; `text` is its body. */
  | { readonly kind: 'refused'; readonly status: number; readonly text: string }
  /** It certainly did not arrive. */
  | { readonly kind: 'unsent'; readonly reason: string }
  /** It may have arrived. */
  | { readonly kind: 'broken'; readonly reason: string };

export interface RemoteOptions {
  /** Of the server's endpoint. */
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Of a session that was opened already. */
  readonly session?: { readonly id: string; readonly protocolVersion: string };
  readonly onMessage: (message: JsonRpcMessage) => void;
  /** The session's stream was refused because the session is gone. */
  readonly onLost: () => void;
  readonly log: (line: string) => void;
}

export interface SendOptions {
  /** Ends the exchange: a cancellation in the era without sessions. */
  readonly signal?: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
  /** The stream of answers ended. The answer may have been on it. */
  readonly onEnd?: () => void;
}

/** A call's broken stream is resumed within about 7 s, or not at all. */
const CALLS: StreamableHTTPReconnectionOptions = {
  initialReconnectionDelay: 500,
  reconnectionDelayGrowFactor: 2,
  maxReconnectionDelay: 4_000,
  maxRetries: 4,
};
const STREAM: StreamableHTTPReconnectionOptions = {
  initialReconnectionDelay: 500,
  reconnectionDelayGrowFactor: 2,
  maxReconnectionDelay: 30_000,
  maxRetries: Number.MAX_SAFE_INTEGER,
};
/** How long a DELETE may keep a process that wants to end, in milliseconds. */
const END_WITHIN_MS = 1_000;
/** Codes with which a connection fails before anything was sent on it. */
const UNSENT =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|CERT_|ERR_TLS|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/;

export class Remote {
  readonly url: URL;
  readonly #options: RemoteOptions;
  readonly #calls: StreamableHTTPClientTransport;
  #stream: StreamableHTTPClientTransport | undefined;
  #closed = false;

  constructor(options: RemoteOptions) {
    this.url = options.url;
    this.#options = options;
    this.#calls = this.#transport(CALLS, callsOnly);
  }

  /** The session's id; undefined until an initialize was answered, and in the era without sessions. */
  get session(): string | undefined {
    return this.#calls.sessionId;
  }

  get protocolVersion(): string | undefined {
    return this.#calls.protocolVersion;
  }

  setProtocolVersion(version: string): void {
    this.#calls.setProtocolVersion(version);
  }

  /** Sends one message; answers come by `onMessage`. Rejects with what `failureOf` reads. */
  async send(message: JsonRpcMessage, { signal, headers, onEnd }: SendOptions = {}): Promise<void> {
    await this.#calls.send(message as Parameters<StreamableHTTPClientTransport['send']>[0], {
      ...(signal ? { requestSignal: signal } : {}),
      ...(headers ? { headers } : {}),
      ...(onEnd ? { onRequestStreamEnd: onEnd } : {}),
    });
  }

  /** Opens the session's stream and keeps it open. */
  listen(): void {
    const { session, protocolVersion } = this;
    if (session === undefined || this.#stream || this.#closed) return;
    const stream = this.#transport(STREAM, fetch, { id: session, protocolVersion: protocolVersion ?? '' });
    this.#stream = stream;
    const open = (attempt: number) => {
      if (this.#stream !== stream) return;
      stream.resumeStream('').catch(() => {
        const { initialReconnectionDelay, maxReconnectionDelay } = STREAM;
        setTimeout(open, Math.min(initialReconnectionDelay * 2 ** attempt, maxReconnectionDelay), attempt + 1).unref();
      });
    };
    stream.onerror = (error) => {
      if (this.#stream !== stream || !(error instanceof SdkHttpError) || error.status !== 404) return;
      this.deafen();
      this.#options.onLost();
    };
    open(0);
  }

  /** Closes the session's stream. */
  deafen(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    void stream?.close();
  }

  /** Ends the session at the far side, as far as that can be had quickly, and closes. */
  async end(): Promise<void> {
    this.deafen();
    const late = new Promise<void>((resolve) => setTimeout(resolve, END_WITHIN_MS).unref());
    const ended = this.#calls.terminateSession().catch((error: unknown) => {
      this.#options.log(`the session could not be ended: ${reasonOf(error)}`);
    });
    await Promise.race([ended, late]);
    await this.close();
  }

  /** Cuts everything. The session lives on at the far side. */
  async close(): Promise<void> {
    this.#closed = true;
    this.deafen();
    await this.#calls.close();
  }

  #transport(
    reconnectionOptions: StreamableHTTPReconnectionOptions,
    using: typeof fetch,
    session = this.#options.session,
  ): StreamableHTTPClientTransport {
    const transport = new StreamableHTTPClientTransport(this.url, {
      // A redirect would take the headers, which are secret, to whoever it names.
      requestInit: { headers: { ...this.#options.headers }, redirect: 'manual' },
      fetch: using,
      reconnectionOptions,
      // A stream that is to be sought again must not keep a process that wants to end.
      reconnectionScheduler: (reconnect, delay) => {
        const timer = setTimeout(reconnect, delay);
        timer.unref();
        return () => clearTimeout(timer);
      },
      ...(session ? { sessionId: session.id, protocolVersion: session.protocolVersion } : {}),
    });
    transport.onmessage = (received) => this.#options.onMessage(received as JsonRpcMessage);
    void transport.start();
    return transport;
  }
}

/** The SDK opens the session's stream by itself, on the transport of the calls: there it is told that there is none. */
const callsOnly: typeof fetch = (input, init) => {
  const isStream = init?.method === 'GET' && !new Headers(init.headers).has('last-event-id');
  return isStream ? Promise.resolve(new Response(null, { status: 405 })) : fetch(input, init);
};

/** What a failed `send` means. `inSession`: it named a session. */
export function failureOf(error: unknown, inSession: boolean): Failure {
  if (error instanceof SdkHttpError && error.status !== undefined) {
    if (error.status === 404 && inSession) return { kind: 'lost' };
    const { text } = error.data as { text?: unknown };
    return { kind: 'refused', status: error.status, text: typeof text === 'string' ? text : '' };
  }
  const { code } = ((error as Error).cause ?? {}) as { code?: unknown };
  return { kind: typeof code === 'string' && UNSENT.test(code) ? 'unsent' : 'broken', reason: reasonOf(error) };
}

/** One line for an error of `fetch`, which hides the reason in its cause. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? error.cause : undefined;
  const { code } = (cause ?? {}) as { code?: unknown };
  return cause ? cause.message || String(code ?? error.message) : error.message;
}
