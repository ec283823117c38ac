/**
 * Owns how a program lends its own HTTP server to the router: requests that it was given are carried to the edge on
 * loopback, and answers back, byte for byte and as they come.
 *
 * The edge trusts whoever reaches it on loopback, and behind a mount that is this proxy. So:
 * - **who may call is the program's decision**: it answers before it hands a request on. All callers are one principal.
 * - `Host` is checked here, since the edge only sees its own address: a web page that points its name at this machine
 *   (DNS rebinding) is refused. `Origin` travels on and the edge refuses pages of other sites; only a page of the base
 *   URL's own host is the program's own, and its `Origin` is taken off.
 * - only the paths of MCP are reachable, nothing with which the router itself is looked into or steered.
 * - headers that tell of proxies on the way are dropped: the edge reads them as a sign of callers from outside.
 */
import { Agent, type IncomingMessage, request as requestOf, type ServerResponse } from 'node:http';
import { pipeline as pipe, Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream as NodeReadableStream } from 'node:stream/web';
import { httpStatus, MoorageError } from '../shared/errors.ts';
import { failure } from '../shared/jsonrpc.ts';
import { prefixEndpoint } from './prefix-endpoint.ts';

export interface Mount {
  /**
   * For `node:http`, Express and their like; works wherever it is mounted. The path of `baseUrl` is stripped. Never
   * throws. A body that a parser has read already (`req.body`) is taken from there.
   */
  readonly handler: (request: IncomingMessage, response: ServerResponse) => void;
  /**
   * For everything that speaks `Request` and `Response`: takes the URL as the client sent it (the path of `baseUrl` is
   * stripped). Rejects only when the request's own signal aborts.
   */
  readonly fetch: (request: Request) => Promise<Response>;
}

/** Where the edge listens; read at each request. */
interface EdgeAddress {
  readonly url: string;
}

/** RFC 9110, section 7.6.1, and what Node answers itself. */
const HOP_BY_HOP = [
  'connection',
  'expect',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
];
const NOT_CARRIED = new Set([...HOP_BY_HOP, 'host', 'forwarded', 'cf-connecting-ip']);
const NOT_RETURNED = new Set(HOP_BY_HOP);
const LOOPBACK = ['localhost', '127.0.0.1', '[::1]'];
/** `/healthz`, the aggregate and one server's endpoints. Reserved names are no servers. */
const REACHABLE = /^\/(healthz|mcp|(?!(?:admin|_origin)\/)[A-Za-z0-9][A-Za-z0-9._@-]*\/(mcp|sse|messages))$/;

type Headers_ = readonly (readonly [string, string])[];

/** One request on its way, without its body. */
interface Carried {
  readonly method: string;
  /** Path and query at the edge. */
  readonly path: string;
  readonly headers: [string, string][];
}

/** `base` is `RouterOptions.baseUrl`. */
export function mountAt(edge: EdgeAddress, base: URL | undefined): Mount {
  // Without keep-alive: workerd closes idle connections without a word, and a request may meet one at that moment.
  const agent = new Agent({ keepAlive: false });
  const hosts = new Set([...LOOPBACK, ...(base ? [base.hostname] : [])]);
  const prefix = base?.pathname.replace(/\/+$/, '') ?? '';

  const admit = (method: string, target: string, host: string | undefined, headers: Headers_): Carried => {
    const own = hostnameOf(host);
    if (own === undefined || !hosts.has(own)) {
      throw new MoorageError(
        'forbidden_origin',
        'This router is not known by that name (bad Host header). Its owner sets baseUrl to the URL that clients use.',
      );
    }
    const { pathname = '', search = '' } = URL.parse(target.startsWith('/') ? `http://router${target}` : target) ?? {};
    const inside = prefix === '' || pathname === prefix || pathname.startsWith(`${prefix}/`);
    const path = inside ? pathname.slice(prefix.length) || '/' : '';
    if (!REACHABLE.test(path)) throw new MoorageError('not_found', 'Nothing of this router is here.');
    const named = new Set(
      headers.filter(([name]) => name === 'connection').flatMap(([, value]) => value.toLowerCase().split(/\s*,\s*/)),
    );
    const kept = headers.filter(
      ([name, value]) =>
        !NOT_CARRIED.has(name) &&
        !named.has(name) &&
        !name.startsWith('x-forwarded-') &&
        !(name === 'origin' && base !== undefined && URL.parse(value)?.hostname === base.hostname),
    );
    return { method, path: path + search, headers: kept.map(([name, value]) => [name, value]) };
  };

  const carry = (
    { method, path, headers }: Carried,
    body: Readable | Buffer | undefined,
    signal: AbortSignal,
  ): Promise<IncomingMessage> => {
    const { hostname, port, host } = new URL(edge.url);
    const lines = [['host', host], ...headers];
    // Without a length the body is chunked, which Node does by itself only for some methods.
    const chunked = body instanceof Readable && !headers.some(([name]) => name === 'content-length');
    if (chunked) lines.push(['transfer-encoding', 'chunked']);
    const outgoing = requestOf({
      agent,
      signal,
      method,
      path,
      host: hostname.replace(/^\[|\]$/g, ''),
      port,
      headers: lines.flat(),
    });
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    outgoing.once('response', resolve);
    outgoing.on('error', reject);
    if (body instanceof Readable) pipeline(body, outgoing).catch((error: Error) => outgoing.destroy(error));
    else outgoing.end(body);
    return promise;
  };

  const isSse = ({ path }: Carried) => prefix !== '' && path.endsWith('/sse');

  return {
    handler: (request, response) => {
      const left = new AbortController();
      response.once('close', () => left.abort());
      const serve = async () => {
        const headers = lowerCased(pairs(request.rawHeaders));
        // Express and its like shorten `url` to what is below the mount; `originalUrl` is what the client asked for.
        const { originalUrl, body: parsed } = request as { originalUrl?: string; body?: unknown };
        const carried = admit(
          request.method ?? 'GET',
          originalUrl ?? request.url ?? '/',
          request.headers.host,
          headers,
        );
        const answer = await carry(carried, bodyOf(request, parsed, carried.headers), left.signal);
        response.writeHead(answer.statusCode ?? 502, returned(answer).flat());
        response.flushHeaders();
        await (isSse(carried) ? pipeline(answer, prefixEndpoint(prefix), response) : pipeline(answer, response));
      };
      serve().catch((error: unknown) => {
        if (response.headersSent || response.destroyed) response.destroy();
        else refuse(response, refusalOf(error));
      });
    },
    fetch: async (request) => {
      const url = new URL(request.url);
      const body = request.body ? Readable.fromWeb(request.body as NodeReadableStream) : undefined;
      try {
        const carried = admit(request.method, request.url, url.host, [...request.headers]);
        const answer = await carry(carried, body, request.signal);
        const status = answer.statusCode ?? 502;
        const bodyless = request.method === 'HEAD' || status === 204 || status === 304;
        if (bodyless) answer.resume();
        const stream = isSse(carried) ? pipe(answer, prefixEndpoint(prefix), () => {}) : answer;
        return new Response(bodyless ? null : (Readable.toWeb(stream) as ReadableStream), {
          status,
          headers: returned(answer),
        });
      } catch (error) {
        request.signal.throwIfAborted();
        body?.destroy();
        const { status, text } = refusalOf(error);
        return new Response(text, { status, headers: { 'content-type': 'application/json' } });
      }
    },
  };
}

/** The body of a request: its stream, or what a body parser has made of it. */
function bodyOf(request: IncomingMessage, parsed: unknown, headers: [string, string][]): Readable | Buffer | undefined {
  const has = request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
  if (!has) return undefined;
  if (!request.readableEnded || parsed === undefined) return request;
  const bytes = Buffer.isBuffer(parsed)
    ? parsed
    : Buffer.from(typeof parsed === 'string' ? parsed : JSON.stringify(parsed));
  const length = headers.findIndex(([name]) => name === 'content-length');
  headers.splice(length === -1 ? headers.length : length, 1, ['content-length', String(bytes.byteLength)]);
  return bytes;
}

interface Refusal {
  readonly status: number;
  /** A JSON-RPC error without an id. */
  readonly text: string;
}

function refusalOf(error: unknown): Refusal {
  const refusal =
    error instanceof MoorageError
      ? error
      : new MoorageError('edge_away', 'The router’s edge does not answer. It is started again: try once more.');
  return { status: httpStatus(refusal.code), text: JSON.stringify(failure(null, refusal)) };
}

function refuse(response: ServerResponse, { status, text }: Refusal): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(text);
}

function hostnameOf(host: string | undefined): string | undefined {
  return host === undefined ? undefined : URL.parse(`http://${host}`)?.hostname;
}

function returned(answer: IncomingMessage): [string, string][] {
  return pairs(answer.rawHeaders).filter(([name]) => !NOT_RETURNED.has(name.toLowerCase()));
}

function pairs(raw: readonly string[]): [string, string][] {
  return Array.from({ length: raw.length / 2 }, (_, n) => [raw[2 * n] ?? '', raw[2 * n + 1] ?? '']);
}

const lowerCased = (headers: Headers_): [string, string][] =>
  headers.map(([name, value]) => [name.toLowerCase(), value]);
