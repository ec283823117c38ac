/**
 * Owns a streaming proxy on this machine. It adds headers for clients that cannot (the conformance CLI has no option
 * for a bearer token) and records what went over the wire. Bytes pass in both directions as they arrive, and a side
 * that goes away takes the other with it.
 */
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { createServer, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';

export interface Exchange {
  /** Milliseconds since the proxy started. */
  at: number;
  method: string;
  path: string;
  requestHeaders: IncomingHttpHeaders;
  requestBody: string;
  status: number | undefined;
  responseHeaders: IncomingHttpHeaders;
  responseBody: string;
  /** Milliseconds since the proxy started; undefined while the response is open. */
  endedAt: number | undefined;
  endedBy: 'server' | 'client' | undefined;
}

export interface Proxy {
  /** The target's URL as seen through the proxy. */
  url: string;
  /** In the order the requests arrived; the last ones may still be growing. */
  exchanges: Exchange[];
  close(): Promise<void>;
}

/** Bodies are recorded up to this many characters and forwarded whole. */
const recorded = 65_536;

export async function startProxy(target: string, headers: Record<string, string> = {}): Promise<Proxy> {
  const upstream = new URL(target);
  const started = performance.now();
  const exchanges: Exchange[] = [];
  const now = () => Math.round(performance.now() - started);

  const server = createServer((incoming, outgoing) => {
    const exchange: Exchange = {
      at: now(),
      method: incoming.method ?? 'GET',
      path: incoming.url ?? '/',
      requestHeaders: incoming.headers,
      requestBody: '',
      status: undefined,
      responseHeaders: {},
      responseBody: '',
      endedAt: undefined,
      endedBy: undefined,
    };
    exchanges.push(exchange);
    const own = incoming.headers.host === `localhost:${port}` ? upstream : undefined;
    const forwarded = send(upstream, incoming, { ...addressed(incoming.headers, own), ...headers });
    forward(incoming, forwarded, outgoing, exchange, now);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;

  return {
    url: `http://localhost:${port}${upstream.pathname}${upstream.search}`,
    exchanges,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Host and Origin that name the proxy name the target from here on; foreign ones, as in an attack, stay. */
function addressed(headers: IncomingHttpHeaders, own: URL | undefined): IncomingHttpHeaders {
  if (!own) return headers;
  return {
    ...headers,
    host: own.host,
    ...(headers.origin === `http://${headers.host}` && { origin: own.origin }),
  };
}

function send(upstream: URL, incoming: IncomingMessage, headers: IncomingHttpHeaders): ClientRequest {
  const start = upstream.protocol === 'https:' ? httpsRequest : httpRequest;
  return start(new URL(incoming.url ?? '/', upstream), {
    ...(incoming.method && { method: incoming.method }),
    headers,
    agent: false,
  });
}

function forward(
  incoming: IncomingMessage,
  forwarded: ClientRequest,
  outgoing: ServerResponse,
  exchange: Exchange,
  now: () => number,
): void {
  const end = (by: 'server' | 'client') => {
    exchange.endedAt ??= now();
    exchange.endedBy ??= by;
  };
  incoming.on('data', (chunk: Buffer) => {
    exchange.requestBody = record(exchange.requestBody, chunk);
  });
  incoming.pipe(forwarded);
  outgoing.once('close', () => {
    end('client');
    forwarded.destroy();
  });
  forwarded.once('response', (answer) => {
    exchange.status = answer.statusCode;
    exchange.responseHeaders = answer.headers;
    outgoing.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
    outgoing.flushHeaders();
    answer.on('data', (chunk: Buffer) => {
      exchange.responseBody = record(exchange.responseBody, chunk);
    });
    answer.once('end', () => end('server'));
    answer.once('error', () => outgoing.destroy());
    answer.pipe(outgoing);
  });
  forwarded.once('error', () => {
    if (outgoing.headersSent) outgoing.destroy();
    else outgoing.writeHead(502).end();
  });
}

function record(soFar: string, chunk: Buffer): string {
  return soFar.length < recorded ? soFar + chunk.toString() : soFar;
}
