/**
 * Owns one instance of an edge server: made for one call, brought to where its session stands, closed after it.
 *
 * It talks through a transport of ours, which keeps apart the ids of different instances: what an instance asks the
 * client carries `<call>.<id>`, and answers are given back under the instance's own id. Whatever the server says while
 * it is being restored was said to the client before, and is dropped; what it asks then is refused.
 */
import { MoorageError } from '../../shared/errors.ts';
import {
  failure,
  isRequest,
  isResponse,
  type JsonRpcMessage,
  type JsonRpcRequest,
  progressTokenOf,
  type RequestId,
} from '../../shared/jsonrpc.ts';
import { initializeOf, restoringRequests } from '../session/memory.ts';
import type { Restore } from '../session/session.ts';

/** What a factory may know of the call that it makes a server for. */
export interface EdgeServerContext {
  readonly server: string;
  readonly session: string;
  readonly principal: string;
}

/** A `Server` or `McpServer` of the MCP SDK, version 1 or 2: anything that connects to a transport. */
export interface EdgeServer {
  connect(transport: InstanceTransport): Promise<void>;
  close(): Promise<void>;
}

/** The default export of an edge server's module. */
export type EdgeServerFactory = (context: EdgeServerContext) => EdgeServer | Promise<EdgeServer>;

interface SendOptions {
  readonly relatedRequestId?: RequestId;
}

/** What the SDK calls a Transport, as far as both of its versions use it. */
export interface InstanceTransport {
  sessionId?: string;
  onmessage?: (message: JsonRpcMessage, extra?: unknown) => void;
  onclose?: () => void;
  onerror?: (error: Error) => void;
  start(): Promise<void>;
  send(message: JsonRpcMessage, options?: SendOptions): Promise<void>;
  close(): Promise<void>;
}

/** How long an instance may take over each message that restores it, in milliseconds. */
const RESTORE_WITHIN_MS = 30_000;

export class Instance {
  readonly #call: string;
  readonly #server: EdgeServer;
  readonly #transport: InstanceTransport;
  /** Takes what the server says about the call. `related`: it belongs to the request rather than to the session. */
  #emit: ((message: JsonRpcMessage, related: boolean) => void) | undefined;
  /** Ids of our own restoring requests, with what waits for their answer. */
  readonly #awaited = new Map<RequestId, (answer: JsonRpcMessage) => void>();

  private constructor(call: string, server: EdgeServer, session: string) {
    this.#call = call;
    this.#server = server;
    this.#transport = {
      sessionId: session,
      start: async () => {},
      send: async (message, options) => this.#out(message, options?.relatedRequestId !== undefined),
      close: async () => this.#transport.onclose?.(),
    };
  }

  /** A connected instance. `call` is unique among the calls of the session. @throws MoorageError `server_failed`. */
  static async create(factory: EdgeServerFactory, context: EdgeServerContext, call: string): Promise<Instance> {
    try {
      const instance = new Instance(call, await factory(context), context.session);
      await instance.#server.connect(instance.#transport);
      return instance;
    } catch (thrown) {
      console.error(`edge server ${context.server} did not start`, thrown);
      throw new MoorageError('server_failed', `The edge server "${context.server}" could not be started.`);
    }
  }

  /** Repeats what the session did so far. Its client has the answers; the one to initialize comes back all the same. */
  async restore(restore: Restore): Promise<JsonRpcMessage> {
    const answer = await this.#ask(initializeOf(restore, this.#call));
    this.#in({ jsonrpc: '2.0', method: 'notifications/initialized' });
    for (const request of restoringRequests(restore, this.#call)) await this.#ask(request);
    return answer;
  }

  /** Gives the server the client's request. From now on everything that it says goes to `emit`. */
  feed(request: JsonRpcRequest, emit: (message: JsonRpcMessage, related: boolean) => void): void {
    this.#emit = emit;
    this.#in(request);
  }

  /** Gives the server what its client said in the middle of the call: an answer, progress, a cancellation. */
  tell(message: JsonRpcMessage): void {
    if (isResponse(message) && typeof message.id === 'string') {
      const own = this.#own(message.id);
      if (own !== undefined) this.#in({ ...message, id: own });
    } else if ('method' in message && message.method === 'notifications/progress') {
      const own = this.#own(message.params?.progressToken);
      if (own !== undefined) this.#in({ ...message, params: { ...message.params, progressToken: own } });
    } else this.#in(message);
  }

  async close(): Promise<void> {
    this.#emit = undefined;
    await this.#server.close();
  }

  #in(message: JsonRpcMessage): void {
    this.#transport.onmessage?.(message);
  }

  #out(message: JsonRpcMessage, related: boolean): void {
    const awaited = isResponse(message) && message.id !== null ? this.#awaited.get(message.id) : undefined;
    if (awaited) {
      awaited(message);
    } else if (!this.#emit) {
      if (isRequest(message)) {
        const reason = new MoorageError('invalid_request', 'Nothing can be asked while a session is being restored.');
        queueMicrotask(() => this.#in(failure(message.id, reason)));
      }
    } else {
      this.#emit(isRequest(message) ? this.#foreign(message) : message, related || !('method' in message));
    }
  }

  #ask(request: JsonRpcRequest): Promise<JsonRpcMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<JsonRpcMessage>();
    const timer = setTimeout(
      () => reject(new MoorageError('request_timeout', `The edge server did not answer ${request.method} in time.`)),
      RESTORE_WITHIN_MS,
    );
    this.#awaited.set(request.id, resolve);
    this.#in(request);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#awaited.delete(request.id);
    });
  }

  /** A request of the server under an id, and a progress token, that no other instance uses. */
  #foreign(request: JsonRpcRequest): JsonRpcRequest {
    const token = progressTokenOf(request);
    const meta = { ...(request.params?._meta as object | undefined), progressToken: `${this.#call}.${token}` };
    const params = token === undefined ? request.params : { ...request.params, _meta: meta };
    return { ...request, id: `${this.#call}.${request.id}`, ...(params && { params }) };
  }

  /** The instance's own id behind one of `#foreign`: SDK servers count theirs from 0. */
  #own(id: unknown): RequestId | undefined {
    if (typeof id !== 'string' || !id.startsWith(`${this.#call}.`)) return undefined;
    const own = id.slice(this.#call.length + 1);
    return /^\d+$/.test(own) ? Number(own) : own;
  }
}

/** The call that an id of `#foreign` belongs to, or null for ids that no instance gave out. */
export function callOf(id: unknown): string | null {
  return typeof id === 'string' ? (/^([A-Za-z0-9_-]{11})\.\S+$/.exec(id)?.[1] ?? null) : null;
}
