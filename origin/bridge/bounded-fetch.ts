/**
 * Owns the HTTP requests to servers that are reached over HTTP: `fetch` with the bounds that a router needs.
 *
 * A server may take as long as a tool takes (no limit on silence once it is connected), and may not cost more memory than
 * one message: a JSON body, one event of a stream and the headers each have a bound, beyond which the exchange fails.
 * Redirects are followed within one origin only: the configured headers may be credentials.
 */
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';

const CONNECT_WITHIN_MS = 10_000;
const MAX_HEADER_BYTES = 64 * 1024;
const MAX_REDIRECTS = 3;
/** Redirects that keep method and body (RFC 9110, section 15.4). */
const REDIRECTS: ReadonlySet<number> = new Set([307, 308]);
const NO_BODY: ReadonlySet<number> = new Set([204, 205, 304]);

/** A `fetch` for text bodies. Rejects with an Error whose `code` is Node's (`ECONNREFUSED` and the like). */
export async function boundedFetch(input: string | URL, init: RequestInit = {}): Promise<Response> {
  let url = new URL(input);
  for (let redirects = 0; ; redirects++) {
    const incoming = await exchange(url, init);
    const status = incoming.statusCode ?? 0;
    const location = incoming.headers.location;
    if (REDIRECTS.has(status) && location !== undefined && redirects < MAX_REDIRECTS) {
      const next = new URL(location, url);
      if (next.origin === url.origin) {
        incoming.resume();
        url = next;
        continue;
      }
    }
    // Fetch's Response refuses what no final answer has.
    if (status < 200 || status > 599) {
      incoming.destroy();
      throw new TypeError(`The server answered with the HTTP status ${status}.`);
    }
    const body = NO_BODY.has(status) ? null : bodyOf(incoming);
    if (body === null) incoming.resume();
    return new Response(body, { status, headers: headersOf(incoming.headers) });
  }
}

function exchange(url: URL, { method, headers, body, signal }: RequestInit): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const outgoing = send(url, {
      method: method ?? 'GET',
      headers: Object.fromEntries(new Headers(headers)),
      maxHeaderSize: MAX_HEADER_BYTES,
      // A connection kept for later may be closed by the server at the moment of its use: an outcome nobody knows.
      agent: false,
      ...(signal ? { signal } : {}),
    });
    outgoing.once('response', resolve);
    outgoing.once('error', reject);
    outgoing.once('socket', (socket) => {
      if (!socket.connecting) return;
      const late = setTimeout(
        () => outgoing.destroy(Object.assign(new Error('No connection in time.'), { code: 'ETIMEDOUT' })),
        CONNECT_WITHIN_MS,
      );
      socket.once('connect', () => clearTimeout(late));
      socket.once('close', () => clearTimeout(late));
    });
    outgoing.end(typeof body === 'string' ? body : undefined);
  });
}

/** The body, read on demand. It fails when one message grows over its bound. */
function bodyOf(incoming: IncomingMessage): ReadableStream<Uint8Array> {
  const isStream = incoming.headers['content-type']?.startsWith('text/event-stream') ?? false;
  const bound = isStream ? new EventBound(MAX_MESSAGE_BYTES) : new BodyBound(MAX_MESSAGE_BYTES);
  const chunks = incoming[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await chunks.next();
          if (done) {
            controller.close();
          } else if (bound.exceededBy(value)) {
            incoming.destroy();
            controller.error(new Error(`A message of the server is larger than ${MAX_MESSAGE_BYTES} bytes.`));
          } else {
            controller.enqueue(new Uint8Array(value));
          }
        } catch (error) {
          controller.error(error);
        }
      },
      cancel: () => void incoming.destroy(),
    },
    { highWaterMark: 0 },
  );
}

function headersOf(incoming: IncomingHttpHeaders): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(incoming)) {
    for (const each of [value ?? []].flat()) headers.append(name, each);
  }
  return headers;
}

/** Counts a whole body. */
class BodyBound {
  readonly #max: number;
  #bytes = 0;

  constructor(max: number) {
    this.#max = max;
  }

  exceededBy(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    return this.#bytes > this.#max;
  }
}

/** Counts one event of a stream at a time: an empty line ends an event (HTML standard, "event stream interpretation"). */
export class EventBound {
  readonly #max: number;
  #event = 0;
  /** Bytes of the current line that are not a carriage return. */
  #line = 0;

  constructor(max: number) {
    this.#max = max;
  }

  exceededBy(chunk: Buffer): boolean {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(0x0a, start);
      const piece = chunk.subarray(start, end === -1 ? undefined : end);
      this.#event += piece.length + 1;
      this.#line += piece.length === 1 && piece[0] === 0x0d ? 0 : piece.length;
      if (this.#event > this.#max) return true;
      if (end === -1) return false;
      if (this.#line === 0) this.#event = 0;
      this.#line = 0;
      start = end + 1;
    }
  }
}
