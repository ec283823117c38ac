/**
 * Owns TLS in front of a local edge: it ends the client's connection, looks at the certificate that the client may have shown,
 * and carries the request to workerd over a Unix socket that nobody else can reach. (workerd itself can end TLS, but tells
 * the Worker nothing of certificates.)
 *
 * Invariants: what the Worker reads as `request.cf` is written here and nowhere else; headers by which a client could pretend
 * to have come through a proxy are dropped; a connection that ends on one side ends on the other.
 */
import { readFileSync, statSync } from 'node:fs';
import { type IncomingMessage, request as requestOf, type ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { TLSSocket } from 'node:tls';

/** The header in which workerd takes `request.cf` on its Unix socket. */
export const CF_HEADER = 'moorage-cf';
export const PROTOCOL_HEADER = 'x-forwarded-proto';
/** How often the files are looked at for a renewed certificate. */
const LOOK_EVERY_MS = 60_000;
/** RFC 9110, section 7.6.1; and what only a proxy may say. */
const DROPPED =
  /^(connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|expect|forwarded|x-forwarded-.*|cf-connecting-ip|moorage-cf)$/;

export interface TlsOptions {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** PEM files. */
  readonly cert: string;
  readonly key: string;
  readonly clientCa?: string | undefined;
  /** workerd's Unix socket. */
  readonly socketPath: string;
  readonly log: (line: string) => void;
}

export interface RunningTls {
  readonly port: number;
  stop(): Promise<void>;
}

/** A certificate, a key or an authority cannot be used; the message names the file's setting. */
export class TlsError extends Error {
  override readonly name = 'EdgeStartError';
}

/** Listens. @throws TlsError. */
export async function startTls(options: TlsOptions): Promise<RunningTls> {
  const { host, port, socketPath, log } = options;
  const server = createServer({
    ...contextOf(options),
    requestCert: options.clientCa !== undefined,
    rejectUnauthorized: false,
  });
  server.on('request', (request, response) => void carry(socketPath, request, response));
  server.on('upgrade', (request, socket, head) => carryUpgrade(socketPath, request, socket, head));
  // Those that became WebSockets are not the server's any more.
  const sockets = new Set<Duplex>();
  server.on('secureConnection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', (_error, socket) => socket.destroy());
  let seen = stampOf(options);
  const look = setInterval(() => {
    const stamp = stampOf(options);
    if (stamp === seen) return;
    try {
      server.setSecureContext(contextOf(options));
      seen = stamp;
      log('the edge uses its renewed certificate');
    } catch {
      // Half of a renewal: the old certificate serves until both files fit.
    }
  }, LOOK_EVERY_MS).unref();
  await new Promise<void>((done, fail) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      fail(
        new TlsError(
          `The edge cannot listen on ${host}:${port} (${error.code}). Stop what does, or choose another edge.port.`,
        ),
      ),
    );
    server.listen(port, host, done);
  });
  return {
    port: (server.address() as AddressInfo).port,
    stop: async () => {
      clearInterval(look);
      const closed = new Promise<void>((done) => server.close(() => done()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function contextOf({ cert, key, clientCa }: TlsOptions) {
  const context = {
    cert: read('edge.tls.cert', cert),
    key: read('edge.tls.key', key),
    ...(clientCa === undefined ? {} : { ca: read('edge.tls.clientCa', clientCa) }),
    minVersion: 'TLSv1.2' as const,
  };
  return context;
}

function read(setting: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new TlsError(`${setting} cannot be read (${(error as NodeJS.ErrnoException).code}).`);
  }
}

const stampOf = ({ cert, key, clientCa }: TlsOptions): string =>
  [cert, key, clientCa].map((file) => (file && statSync(file, { throwIfNoEntry: false })?.mtimeMs) ?? '').join();

async function carry(socketPath: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const outgoing = requestOf({
    socketPath,
    agent: false,
    method: request.method,
    path: request.url,
    // workerd is not to close first: Node still says that the body is over when the answer is there already, and to a closed
    // connection that is an error (EPIPE) that takes the answer with it. The agent closes after one answer.
    headers: [...headersOf(request), 'connection', 'keep-alive'],
  });
  // Also when the client leaves while it still sends, or before it is answered.
  response.once('close', () => outgoing.destroy());
  const answered = new Promise<IncomingMessage>((done, fail) => outgoing.once('response', done).once('error', fail));
  pipeline(request, outgoing).catch(() => outgoing.destroy());
  try {
    const answer = await answered;
    response.writeHead(answer.statusCode ?? 502, answer.rawHeaders.filter(notOfConnection(answer.rawHeaders)));
    response.flushHeaders();
    await pipeline(answer, response);
  } catch {
    if (response.headersSent || response.destroyed) response.destroy();
    else response.writeHead(502).end();
  }
}

/** A WebSocket: the link of an agent on another host. */
function carryUpgrade(socketPath: string, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const headers = [...headersOf(request), 'connection', 'Upgrade', 'upgrade', request.headers.upgrade ?? ''];
  const outgoing = requestOf({ socketPath, agent: false, method: request.method, path: request.url, headers });
  const give = (answer: IncomingMessage) => {
    const lines = [`HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}`];
    for (let n = 0; n < answer.rawHeaders.length; n += 2)
      lines.push(`${answer.rawHeaders[n]}: ${answer.rawHeaders[n + 1]}`);
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  };
  outgoing.once('upgrade', (answer, far, first) => {
    give(answer);
    socket.write(first);
    far.write(head);
    pipeline(far, socket, far).catch(() => undefined);
  });
  outgoing.once('response', (answer) => {
    give(answer);
    pipeline(answer, socket).catch(() => undefined);
  });
  outgoing.once('error', () => socket.destroy());
  socket.once('error', () => outgoing.destroy());
  outgoing.end();
}

/** Names and values in turn, as Node takes them. */
function headersOf(request: IncomingMessage): string[] {
  const named = new Set((request.headers.connection ?? '').toLowerCase().split(/\s*,\s*/));
  const kept: string[] = [];
  for (let n = 0; n < request.rawHeaders.length; n += 2) {
    const [name = '', value = ''] = [request.rawHeaders[n], request.rawHeaders[n + 1]];
    if (!DROPPED.test(name.toLowerCase()) && !named.has(name.toLowerCase())) kept.push(name, value);
  }
  const socket = request.socket as TLSSocket;
  const cf = { clientIp: socket.remoteAddress, tlsClientAuth: certificateOf(socket) };
  return [...kept, PROTOCOL_HEADER, 'https', CF_HEADER, JSON.stringify(cf)];
}

/** As Cloudflare tells it in `request.cf.tlsClientAuth`. */
function certificateOf(socket: TLSSocket): Record<string, string> {
  const certificate = socket.getPeerX509Certificate?.();
  if (!certificate) return { certPresented: '0', certVerified: 'NONE' };
  return {
    certPresented: '1',
    certVerified: socket.authorized ? 'SUCCESS' : `FAILED:${String(socket.authorizationError)}`,
    certRevoked: '0',
    certFingerprintSHA256: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    // Node has one attribute a line, escaped as in RFC 2253, in the certificate's order: RFC 2253 begins with the last.
    certSubjectDNRFC2253: certificate.subject.split('\n').reverse().join(','),
    certNotAfter: certificate.validTo,
  };
}

/** Leaves out what is between workerd and here alone. */
function notOfConnection(raw: readonly string[]): (text: string, index: number) => boolean {
  return (_, index) => !/^(connection|keep-alive|transfer-encoding)$/i.test(raw[index - (index % 2)] ?? '');
}
