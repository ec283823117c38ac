/**
 * Owns the agent's control interface: what its owner may ask of it beside MCP, over HTTP on a Unix socket (0600).
 *
 * Whoever can open the socket is the owner: it lies in the state folder, which nobody else may enter. The tunnel never
 * leads here. Requests and answers are JSON; a stream (a terminal) is a WebSocket. Failures are `ErrorBody`.
 * Each noun has a module in this folder that returns its routes; this one only serves them.
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { type WebSocket, WebSocketServer } from 'ws';
import { httpStatus, MoorageError, toErrorBody, toMoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';

/** The largest JSON body, in bytes; streams have none. */
const MAX_BODY_BYTES = 1024 * 1024;
/** The largest frame of a stream, in bytes. */
export const MAX_CONTROL_FRAME_BYTES = 1024 * 1024;

/** Serves one WebSocket. `url` is the path that was asked for, with its query. */
export type ControlSocket = (socket: WebSocket, url: URL) => void | Promise<void>;

export interface ControlOptions {
  /** Path of the Unix socket. */
  readonly socket: string;
  /** Routes by the path that they are mounted at, such as `/v1/machines`. */
  readonly routes: Readonly<Record<string, Hono>>;
  /** Streams by their exact path, such as `/v1/terminal`. */
  readonly sockets: Readonly<Record<string, ControlSocket>>;
  readonly log: Log;
}

export interface Control {
  close(): Promise<void>;
}

/** Starts serving. A socket that a crash left behind is replaced. */
export async function startControl({ socket, routes, sockets, log }: ControlOptions): Promise<Control> {
  const app = new Hono();
  app.use(bodyLimit({ maxSize: MAX_BODY_BYTES, onError: () => failure(tooLarge()) }));
  for (const [path, route] of Object.entries(routes)) app.route(path, route);
  app.notFound(() => failure(new MoorageError('not_found', 'This agent has no such command. Is it of this version?')));
  app.onError((thrown) => {
    if (!(thrown instanceof MoorageError)) log.error(`control: ${thrown.stack ?? thrown.message}`);
    return failure(toMoorageError(thrown));
  });
  const server = createServer(getRequestListener(app.fetch));
  const streams = new WebSocketServer({ noServer: true, maxPayload: MAX_CONTROL_FRAME_BYTES });
  server.on('upgrade', (request: IncomingMessage, pipe: Duplex, head: Buffer) => {
    const url = URL.parse(request.url ?? '/', 'http://control');
    const serve = url && Object.hasOwn(sockets, url.pathname) ? sockets[url.pathname] : undefined;
    if (!url || !serve) {
      pipe.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n');
      return;
    }
    streams.handleUpgrade(request, pipe, head, (stream) => {
      stream.on('error', (error) => log.debug(`control: ${error.message}`));
      Promise.resolve(serve(stream, url)).catch((thrown: unknown) => {
        stream.close(1011, toMoorageError(thrown).code);
      });
    });
  });
  mkdirSync(dirname(socket), { recursive: true, mode: 0o700 });
  rmSync(socket, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path: socket }, resolve);
  });
  chmodSync(socket, 0o600);
  return {
    close: async () => {
      for (const stream of streams.clients) stream.terminate();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

const tooLarge = (): MoorageError =>
  new MoorageError('body_too_large', `A request to the agent may have ${MAX_BODY_BYTES} bytes.`);

function failure(error: MoorageError): Response {
  return Response.json(toErrorBody(error), { status: httpStatus(error.code) });
}
