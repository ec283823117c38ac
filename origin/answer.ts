/**
 * Owns how one call is answered over HTTP: JSON when the answer is there at once and alone, else an event stream.
 *
 * States: quiet (JSON is still possible), then streaming, then settled; or settled from quiet. A call of an open session
 * streams through the journal and can be resumed; where there is none (`initialize`: nothing can be asked for in a session
 * that does not exist yet) its stream is plain. Either begins with a first byte at once and has a comment every
 * `KEEP_ALIVE_MS`, so that nothing on the way cuts a slow tool.
 * Invariants: the response is ended exactly once; a reader that does not read costs bounded memory.
 */
import type { ServerResponse } from 'node:http';
import { type ErrorCode, httpStatus, isInBand, type MoorageError, toErrorBody } from '../shared/errors.ts';
import {
  failure,
  isNotification,
  type JsonRpcMessage,
  type JsonRpcResponse,
  type RequestId,
} from '../shared/jsonrpc.ts';
import {
  FAILURE_EVENT,
  FAILURE_HEADER,
  KEEP_ALIVE_LINE,
  KEEP_ALIVE_MS,
  MAX_MESSAGE_BYTES,
} from '../shared/origin-api.ts';
import type { CallSink } from './bridge/peer.ts';
import { Connection, STREAM_HEADERS } from './journal/connection.ts';
import type { Stream } from './journal/stream.ts';

/** How long an answer may take and still be sent as plain JSON, in milliseconds. */
const JSON_WITHIN_MS = 200;
/** In the stateless era, whose errors have HTTP statuses: longer than the edge waits before it opens the stream itself. */
const STATUS_WITHIN_MS = 2000;

export interface AnswerOptions {
  /** Makes the stream by which the answer can be resumed. */
  readonly resumable?: (() => Stream) | undefined;
  /** Whether the client takes events without data (`takesPriming`). */
  readonly primed?: boolean;
  /** The client would rather have a stream: it begins at once. */
  readonly preferStream?: boolean;
  /** Every failure is a JSON-RPC error with status 200: the exchange itself succeeded. */
  readonly inBand?: boolean;
}

/** The HTTP answer to request `id`. */
export class Answer implements CallSink {
  readonly #response: ServerResponse;
  readonly #id: RequestId;
  readonly #options: AnswerOptions;
  #journaled: { readonly stream: Stream; readonly connection: Connection } | undefined;
  #streaming = false;
  #ended = false;
  #timer: NodeJS.Timeout;

  constructor(response: ServerResponse, id: RequestId, options: AnswerOptions = {}) {
    this.#response = response;
    this.#id = id;
    this.#options = options;
    const quickMs = options.inBand ? STATUS_WITHIN_MS : JSON_WITHIN_MS;
    this.#timer = setTimeout(() => this.#stream(), options.preferStream ? 0 : quickMs);
    response.once('close', () => clearInterval(this.#timer));
  }

  get settled(): boolean {
    return this.#ended;
  }

  /** A reader that left and knows where it was comes back for what was said meanwhile. */
  get open(): boolean {
    if (this.#ended) return false;
    if (!this.#journaled) return !this.#response.destroyed;
    const { connection } = this.#journaled;
    return connection.open || connection.named;
  }

  message(message: JsonRpcMessage): void {
    if (!this.open) return;
    this.#stream();
    if (this.#journaled) this.#journaled.stream.append(message);
    else if (!isNotification(message) || this.#response.writableLength <= MAX_MESSAGE_BYTES) this.#event(message);
  }

  answer(message: JsonRpcResponse): void {
    this.#settle(message);
  }

  /** A failure of ours: marked, so that the edge can tell it from an error that a server wrote to look like one. */
  fail(error: MoorageError): void {
    if (this.#ended) return;
    if (this.#streaming || this.#options.inBand || isInBand(error.code)) {
      this.#settle(failure(this.#id, error), error.code);
      return;
    }
    this.#ended = true;
    clearInterval(this.#timer);
    if (!this.#response.destroyed) sendJson(this.#response, httpStatus(error.code), toErrorBody(error));
  }

  /** `failed`: the message is the agent's own. */
  #settle(message: JsonRpcResponse, failed?: ErrorCode): void {
    if (this.#ended) return;
    if (this.#options.preferStream) this.#stream();
    this.#ended = true;
    clearInterval(this.#timer);
    if (this.#journaled) {
      this.#journaled.stream.end(message, failed !== undefined);
    } else if (!this.#response.destroyed) {
      if (this.#streaming) {
        this.#event(message, failed && FAILURE_EVENT);
        this.#response.end();
      } else {
        if (failed) this.#response.setHeader(FAILURE_HEADER, failed);
        sendJson(this.#response, 200, message);
      }
    }
  }

  #stream(): void {
    if (this.#streaming || this.#ended || this.#response.destroyed) return;
    clearTimeout(this.#timer);
    this.#streaming = true;
    const stream = this.#options.resumable?.();
    if (stream) {
      const connection = new Connection(this.#response, stream, {
        after: 0,
        primed: this.#options.primed ?? false,
      });
      this.#journaled = { stream, connection };
      return;
    }
    this.#response.writeHead(200, STREAM_HEADERS);
    this.#response.write(KEEP_ALIVE_LINE);
    this.#timer = setInterval(() => this.#response.write(KEEP_ALIVE_LINE), KEEP_ALIVE_MS);
  }

  #event(message: JsonRpcMessage, name = 'message'): void {
    this.#response.write(`event: ${name}\ndata: ${JSON.stringify(message)}\n\n`);
  }
}

/** One JSON body, complete. */
export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = Buffer.from(JSON.stringify(body));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': text.length });
  response.end(text);
}
