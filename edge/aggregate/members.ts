/**
 * Owns the sessions that one session at `/mcp` has with servers: opens each with the client's own initialize when it is
 * first needed, speaks to it as a client of `/<server>/mcp` would, and opens it again when it was lost.
 *
 * Whatever a server's own endpoint does (waking, restoring, retrying, limits) therefore holds here too.
 */
import { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import { isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import type { Env } from '../env.ts';
import { readBounded } from '../read-message.ts';
import { messageOf, SseScanner } from '../sse.ts';
import { type AggregateState, aggregateOf } from './object.ts';

/**
 * One request to a server's own endpoint, on behalf of the same caller. `follows`: it goes with the one before, and no limit
 * may come between them.
 */
export type Inner = (server: string, request: Request, follows?: boolean) => Promise<Response>;

const SESSION_HEADER = 'mcp-session-id';

export interface MembersOptions {
  readonly env: Env;
  /** Session id at `/mcp`. */
  readonly session: string;
  readonly state: AggregateState;
  readonly inner: Inner;
  /** Headers of the client's request that concern the protocol: they hold for the member too. */
  readonly version: string | null;
}

export class Members {
  readonly #options: MembersOptions;
  readonly #sessions = new Map<string, Promise<string>>();

  constructor(options: MembersOptions) {
    this.#options = options;
    for (const [server, session] of Object.entries(options.state.members)) {
      this.#sessions.set(server, Promise.resolve(session));
    }
  }

  /** Servers that have a member. */
  get servers(): string[] {
    return [...this.#sessions.keys()];
  }

  /** Posts a message to a server's member. Its answer is the endpoint's, refusals included. */
  async post(server: string, message: JsonRpcMessage): Promise<Response> {
    const session = await this.#member(server, null);
    const response = await this.#send(server, message, session);
    if (response.status !== 404) return response;
    await response.body?.cancel();
    return await this.#send(server, message, await this.#member(server, session));
  }

  /** Posts a request and waits for its result. @throws MoorageError; `not_found` when the server lacks the method. */
  async ask(server: string, request: JsonRpcRequest): Promise<Readonly<Record<string, unknown>>> {
    return resultOf(await answerOf(await this.post(server, request), request));
  }

  /** A notification to every member there is. Nothing is opened and nobody's failure matters to the others. */
  async tell(message: JsonRpcMessage): Promise<void> {
    await Promise.allSettled(
      this.servers.map(async (server) => {
        const response = await this.#send(server, message, await this.#member(server, null));
        await response.body?.cancel();
      }),
    );
  }

  #member(server: string, lost: string | null): Promise<string> {
    const known = lost === null ? this.#sessions.get(server) : undefined;
    if (known) return known;
    const opening = this.#open(server, lost);
    this.#sessions.set(server, opening);
    opening.catch(() => this.#sessions.delete(server));
    return opening;
  }

  async #open(server: string, lost: string | null): Promise<string> {
    const { env, session, state } = this.#options;
    const initialize: JsonRpcRequest = {
      jsonrpc: '2.0',
      id: 'moorage-initialize',
      method: 'initialize',
      params: JSON.parse(state.initialize) as Record<string, unknown>,
    };
    const response = await this.#send(server, initialize, null);
    const opened = response.headers.get(SESSION_HEADER);
    resultOf(await answerOf(response, initialize));
    if (opened === null) throw new MoorageError('server_failed', `Server "${server}" opened no session.`);
    const member = await aggregateOf(env, session).addMember(server, opened, lost);
    if (member !== opened) {
      // Another Worker was first, or the session at /mcp has ended meanwhile: ours is superfluous.
      await this.#end(server, opened);
      if (member === null) throw new MoorageError('session_not_found', 'This session has ended. Initialize a new one.');
      return member;
    }
    await this.#send(server, { jsonrpc: '2.0', method: 'notifications/initialized' }, opened, true);
    if (state.logLevel !== null) {
      const params = { level: state.logLevel };
      const level: JsonRpcRequest = { jsonrpc: '2.0', id: 'moorage-level', method: 'logging/setLevel', params };
      const answered = await this.#send(server, level, opened, true);
      await answered.body?.cancel();
    }
    return opened;
  }

  async #end(server: string, session: string): Promise<void> {
    const response = await this.#options.inner(server, memberRequest('DELETE', { [SESSION_HEADER]: session }));
    await response.body?.cancel();
  }

  #send(server: string, message: JsonRpcMessage, session: string | null, follows = false): Promise<Response> {
    const { version, inner } = this.#options;
    const headers: Record<string, string> = {
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
    };
    if (session !== null) headers[SESSION_HEADER] = session;
    if (session !== null && version !== null) headers['mcp-protocol-version'] = version;
    return inner(server, memberRequest('POST', headers, JSON.stringify(message)), follows);
  }
}

/** A request to a server's endpoint. Its host is never looked at: the caller was authenticated at `/mcp`. */
export function memberRequest(method: string, headers: Record<string, string>, body?: string): Request {
  return new Request('http://localhost/', { method, headers, ...(body === undefined ? {} : { body }) });
}

/** The response to `request` in an endpoint's answer, JSON or stream; what else is in the stream is passed over. */
export async function answerOf(response: Response, request: JsonRpcRequest): Promise<JsonRpcMessage> {
  const type = response.headers.get('content-type') ?? '';
  if (type.startsWith('text/event-stream') && response.body) {
    const scanner = new SseScanner();
    for await (const chunk of response.body as ReadableStream<Uint8Array>) {
      for (const event of scanner.push(chunk)) {
        const message = messageOf(event);
        if (message && isResponse(message) && message.id === request.id) return message;
      }
      if (scanner.held > MAX_MESSAGE_BYTES) break;
    }
    throw new MoorageError('server_failed', 'The server ended its answer before it was complete.');
  }
  const bytes = await readBounded(response, MAX_MESSAGE_BYTES);
  const message: unknown = parseExactly(new TextDecoder().decode(bytes));
  return message as JsonRpcMessage;
}

const METHOD_NOT_FOUND = -32601;

/** What a refusal says that tells when to try again. */
const limited = z.object({ code: z.literal('rate_limited'), limit: z.string(), retryAfterS: z.number() });

/**
 * The result in an answer. @throws MoorageError `not_found` when the server lacks the method, `rate_limited` when a limit of
 * the server refused, else `server_failed`.
 */
export function resultOf(answer: JsonRpcMessage): Readonly<Record<string, unknown>> {
  if ('result' in answer) return answer.result;
  const error = 'error' in answer ? answer.error : undefined;
  const refused = limited.safeParse(error?.data);
  if (error && refused.success) {
    const { limit, retryAfterS } = refused.data;
    throw new MoorageError('rate_limited', error.message, { limit, retryAfterS, retryable: true });
  }
  const code = error?.code === METHOD_NOT_FOUND ? 'not_found' : 'server_failed';
  throw new MoorageError(code, error?.message ?? 'The server gave no answer.');
}
