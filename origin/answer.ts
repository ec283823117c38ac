/**
 * Owns how one call is answered over HTTP: JSON when the answer is there at once and alone, else an SSE stream.
 *
 * The stream begins with a comment line and has one every `KEEP_ALIVE_MS`, so headers and a first byte leave early and
 * nothing on the way cuts a slow tool. Invariants: the response is ended exactly once; a reader that does not read costs
 * bounded memory (progress and log messages are dropped for it, an answer never).
 */
import type { ServerResponse } from 'node:http';
import { httpStatus, isInBand, type MoorageError, toErrorBody } from '../shared/errors.ts';
import {
  failure,
  isNotification,
  type JsonRpcMessage,
  type JsonRpcResponse,
  type RequestId,
} from '../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS, MAX_MESSAGE_BYTES } from '../shared/origin-api.ts';
import type { CallSink } from './bridge/peer.ts';

/** How long an answer may take and still be sent as plain JSON, in milliseconds. */
const JSON_WITHIN_MS = 200;

/** The HTTP answer to request `id`. */
export class Answer implements CallSink {
  readonly #response: ServerResponse;
  readonly #id: RequestId;
  #streaming = false;
  #ended = false;
  #timer: NodeJS.Timeout;

  constructor(response: ServerResponse, id: RequestId) {
    this.#response = response;
    this.#id = id;
    this.#timer = setTimeout(() => this.#stream(), JSON_WITHIN_MS);
    response.once('close', () => clearInterval(this.#timer));
  }

  get open(): boolean {
    return !this.#ended && !this.#response.destroyed;
  }

  message(message: JsonRpcMessage): void {
    if (!this.open) return;
    if (isNotification(message) && this.#response.writableLength > MAX_MESSAGE_BYTES) return;
    this.#stream();
    this.#event(message);
  }

  answer(message: JsonRpcResponse): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    if (this.#response.destroyed) return;
    if (this.#streaming) {
      this.#event(message);
      this.#response.end();
      return;
    }
    sendJson(this.#response, 200, message);
  }

  fail(error: MoorageError): void {
    if (this.#ended) return;
    if (this.#streaming || isInBand(error.code)) {
      this.answer(failure(this.#id, error));
      return;
    }
    this.#ended = true;
    clearInterval(this.#timer);
    if (!this.#response.destroyed) sendJson(this.#response, httpStatus(error.code), toErrorBody(error));
  }

  #stream(): void {
    if (this.#streaming || this.#ended || this.#response.destroyed) return;
    clearTimeout(this.#timer);
    this.#streaming = true;
    this.#response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
    });
    this.#response.write(KEEP_ALIVE_LINE);
    this.#timer = setInterval(() => this.#response.write(KEEP_ALIVE_LINE), KEEP_ALIVE_MS);
  }

  #event(message: JsonRpcMessage): void {
    this.#response.write(`event: message\ndata: ${JSON.stringify(message)}\n\n`);
  }
}

/** One JSON body, complete. */
export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = Buffer.from(JSON.stringify(body));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': text.length });
  response.end(text);
}
