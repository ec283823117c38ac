/**
 * Owns HTTP+SSE, the transport of 2024-11-05: `GET /<server>/sse` opens the stream on which every answer travels, and
 * `POST /<server>/messages?sessionId=…` takes the client's messages.
 *
 * The Worker that holds the stream is the carrier. A POST, in whatever isolate, hands its message to the Lane object of
 * principal and server, and that to the carrier's WebSocket; the carrier uses the Streamable HTTP endpoint as any client
 * would, and writes whatever comes of it into its stream.
 *
 *   waiting ──initialize──▶ open ──stream closed──▶ ended (the session behind it too)
 *
 * Invariants: messages are taken in the order in which they came; another principal finds no stream, whatever id it
 * knows; no credential is read from a query string.
 */
import { edgeServers } from 'moorage:edge-servers';
import { MoorageError } from '../../shared/errors.ts';
import { failure, isRequest, type JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { directoryOf } from '../directory/object.ts';
import { SESSION_HEADER } from '../endpoint.ts';
import { sessionKeyOf } from '../env.ts';
import { checkServer, visible } from '../guard/guard.ts';
import { laneId } from '../lane/id.ts';
import { joinStream, laneOf } from '../lane/object.ts';
import { limited } from '../limits/limit.ts';
import { type Exchange, serveMcp } from '../mcp.ts';
import { accepts, readBody } from '../read-message.ts';
import { respondError, STREAM_HEADERS } from '../respond.ts';
import { unknownServer } from '../session/refusals.ts';
import { Funnel } from './funnel.ts';

const STREAM_ID = /^[0-9a-f]{32}$/;
/** Messages that may wait at the carrier. */
const MAX_WAITING = 1000;

/** Opens a stream. Every failure is an answer. */
export async function openSse(exchange: Exchange): Promise<Response> {
  const { env, request, server } = exchange;
  try {
    if (!accepts(request.headers.get('accept'), ['text/event-stream'])) {
      throw new MoorageError('not_acceptable', 'This is a stream of text/event-stream: Accept must list it.');
    }
    // The server hears of it by what the stream carries, which is counted then.
    return await limited({ ...exchange, server: undefined }, null, async () => {
      checkServer(exchange);
      if (!Object.hasOwn(edgeServers, server)) {
        const found = await directoryOf(env).resolve(server);
        if (!('route' in found)) throw unknownServer(server, visible(env, exchange.principal, found.servers));
      }
      const id = crypto.randomUUID().replaceAll('-', '');
      const socket = await joinStream(env, await laneOfExchange(exchange), id);
      return new Response(new Carrier(exchange, socket).open(id), { headers: STREAM_HEADERS });
    });
  } catch (thrown) {
    return respondError(thrown);
  }
}

/** Takes a message for a stream. Every failure is an answer. */
export async function postToSse(exchange: Exchange): Promise<Response> {
  try {
    const { value, text } = await readBody(exchange.request);
    if (Array.isArray(value)) throw new MoorageError('invalid_request', 'This transport takes one message at a time.');
    const id = new URL(exchange.request.url).searchParams.get('sessionId') ?? '';
    const lane = laneOf(exchange.env, await laneOfExchange(exchange));
    if (!STREAM_ID.test(id) || !(await lane.post(id, text))) {
      throw new MoorageError('session_not_found', 'No stream has this sessionId. Open a new one.');
    }
    return new Response('Accepted', { status: 202 });
  } catch (thrown) {
    return respondError(thrown);
  }
}

const laneOfExchange = async ({ env, server, principal }: Exchange): Promise<string> =>
  await laneId(await sessionKeyOf(env), server, principal.subject);

/** One stream, and the session behind it. */
class Carrier {
  readonly #exchange: Exchange;
  readonly #socket: WebSocket;
  readonly #funnel = new Funnel();
  #session: string | undefined;
  #waiting = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(exchange: Exchange, socket: WebSocket) {
    this.#exchange = exchange;
    this.#socket = socket;
  }

  open(id: string): ReadableStream<Uint8Array> {
    this.#socket.addEventListener('message', ({ data }) => {
      if (typeof data === 'string') this.#take(data);
    });
    this.#socket.addEventListener('close', () => this.#funnel.close());
    this.#funnel.write(`event: endpoint\ndata: /${this.#exchange.server}/messages?sessionId=${id}\n\n`);
    this.#exchange.waitUntil(this.#funnel.ended.then(() => this.#end()));
    return this.#funnel.body;
  }

  #take(text: string): void {
    if (this.#waiting >= MAX_WAITING) {
      this.#funnel.close();
      return;
    }
    this.#waiting++;
    this.#tail = this.#tail
      .then(() => this.#carry(text))
      .catch((thrown: unknown) => console.error('an HTTP+SSE message failed', thrown))
      .finally(() => this.#waiting--);
  }

  async #carry(text: string): Promise<void> {
    const message = JSON.parse(text) as JsonRpcMessage;
    if (!isRequest(message)) {
      // Taken before the next message: what is told takes effect before what is asked after it.
      const answer = await this.#serve('POST', text);
      return await answer.body?.cancel();
    }
    if (message.method === 'initialize') return await this.#initialize(text, message.id);
    const answer = this.#serve('POST', text);
    this.#exchange.waitUntil(answer.then((response) => this.#funnel.pour(response)));
  }

  async #initialize(text: string, id: string | number): Promise<void> {
    if (this.#session !== undefined) {
      const error = new MoorageError('invalid_request', 'This stream is initialized already. Open a new one.');
      return await this.#funnel.pour(Response.json(failure(id, error)));
    }
    const answer = await this.#serve('POST', text);
    this.#session = answer.headers.get(SESSION_HEADER) ?? undefined;
    await this.#funnel.pour(answer);
    if (this.#session === undefined) return;
    const unasked = await this.#serve('GET');
    // A session that failed to open after all has no stream, and its client has been told.
    if (unasked.status !== 200) return await unasked.body?.cancel();
    this.#exchange.waitUntil(this.#funnel.pour(unasked).then(() => this.#funnel.close()));
  }

  /** A request to the Streamable HTTP endpoint; its failures are answers. */
  #serve(method: 'POST' | 'GET' | 'DELETE', body?: string): Promise<Response> {
    const headers = new Headers({ accept: 'application/json, text/event-stream', 'content-type': 'application/json' });
    if (this.#session !== undefined) headers.set(SESSION_HEADER, this.#session);
    const request = new Request(this.#exchange.request.url, { method, headers, ...(body !== undefined && { body }) });
    return serveMcp({ ...this.#exchange, request, wholeStreams: true });
  }

  async #end(): Promise<void> {
    this.#socket.close(1000, 'the stream is closed');
    if (this.#session !== undefined) await this.#serve('DELETE');
  }
}
