/**
 * The far end of the tunnel under a test's control: an HTTP server on a Unix socket that speaks `shared/origin-api.ts` and
 * does with each message what the test says, and the link that an agent would dial.
 */
import { rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import { WebSocket } from 'ws';
import type { ErrorCode } from '../../shared/errors.ts';
import { type EdgeKeys, type Grant, importKey, signLinkToken, verifyGrant } from '../../shared/grant.ts';
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { type AnnouncedServer, type DownFrame, LINK_PATH, ORIGIN_HEADER } from '../../shared/link.ts';
import { REPLAY_HEADER, SESSION_PATH, STREAMS_PATH } from '../../shared/origin-api.ts';
import { PROOF_HEADER, verifyProof } from '../../shared/proof.ts';

/** One message that arrived. */
export interface Arrived {
  readonly grant: Grant;
  readonly replay: boolean;
  /** Of a replay: its initialize. */
  readonly message: JsonRpcMessage;
  /** Of a replay: what follows its initialize. */
  readonly also: readonly JsonRpcMessage[];
  /** As it came. */
  readonly text: string;
  readonly headers: IncomingMessage['headers'];
}

/** A stream that the edge asks for again. */
export interface Resumed {
  readonly grant: Grant;
  /** `<stream>?after=<n>`. */
  readonly at: string;
  readonly headers: IncomingMessage['headers'];
}

export type Handler = (arrived: Arrived, response: ServerResponse) => void | Promise<void>;

export const PROTOCOL = '2025-11-25';

/** An Ed25519 pair as JWKs. */
export async function keyPair(): Promise<{ privateJwk: JWK; publicJwk: JWK }> {
  const { privateKey, publicKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  return { privateJwk: await exportJWK(privateKey), publicJwk: await exportJWK(publicKey) };
}

export function json(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

export function refuse(response: ServerResponse, status: number, code: ErrorCode): void {
  json(response, { error: { code, message: `scripted ${code}`, data: {} } }, status);
}

export const event = (message: unknown): string => `event: message\ndata: ${JSON.stringify(message)}\n\n`;

export const result = (message: JsonRpcMessage, value: Record<string, unknown> = {}): unknown => ({
  jsonrpc: '2.0',
  id: (message as JsonRpcRequest).id,
  result: value,
});

/** What a plain server does: opens sessions, answers every request with its own method, takes the rest. */
export const plain: Handler = ({ message }, response) => {
  if ('method' in message && message.method === 'initialize') {
    const serverInfo = { name: 'scripted', version: '1' };
    json(response, result(message, { protocolVersion: PROTOCOL, capabilities: {}, serverInfo }));
  } else if ('method' in message && 'id' in message) {
    json(response, result(message, { echo: message.method }));
  } else {
    response.writeHead(202).end();
  }
};

export class ScriptedOrigin {
  readonly id: string;
  readonly socketPath: string;
  readonly arrived: Arrived[] = [];
  /** Grants of sessions that the edge ended here. */
  readonly ended: Grant[] = [];
  handler: Handler = plain;
  /** Streams that the edge asked for again, in order. */
  readonly resumed: Resumed[] = [];
  onResume: (resumed: Resumed, response: ServerResponse) => void = (_, response) =>
    refuse(response, 404, 'stream_unknown');
  readonly #edgeKey: JWK;
  #server: Server | undefined;

  constructor(id: string, socketPath: string, edgeKey: JWK) {
    this.id = id;
    this.socketPath = socketPath;
    this.#edgeKey = edgeKey;
  }

  async listen(): Promise<void> {
    await rm(this.socketPath, { force: true });
    const server = createServer((request, response) => {
      void this.#serve(request, response);
    });
    // As the agent's: a connection that is closed while the edge takes it up again loses a call.
    server.keepAliveTimeout = 75_000;
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.socketPath, resolve));
  }

  /** Stops listening and cuts every connection. The socket's file goes with it. */
  async close(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    server?.closeAllConnections();
    await new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const token = request.headers.authorization?.replace('Bearer ', '') ?? '';
    const keys: EdgeKeys = [await importKey(this.#edgeKey)];
    const grant = await verifyGrant(keys, token, this.id, Date.now());
    const asked = {
      method: request.method ?? '',
      path: request.url ?? '',
      headers: Object.entries(request.headers).map(([name, value]) => [name, String(value)] as const),
      grant: token,
    };
    const proof = await verifyProof(keys, String(request.headers[PROOF_HEADER]), this.id, asked, Date.now());
    if (request.method === 'DELETE' && request.url === SESSION_PATH) {
      this.ended.push(grant);
      response.writeHead(204).end();
      return;
    }
    if (request.method === 'GET' && request.url?.startsWith(STREAMS_PATH)) {
      const resumed = { grant, at: request.url.slice(STREAMS_PATH.length), headers: request.headers };
      this.resumed.push(resumed);
      this.onResume(resumed, response);
      return;
    }
    const parts: Buffer[] = [];
    try {
      for await (const part of request) parts.push(part as Buffer);
    } catch {
      // The edge broke off before the message was whole: nothing has arrived.
      return;
    }
    if (!(await proof.covers(Buffer.concat(parts)))) throw new Error('the proof is of another body');
    const text = Buffer.concat(parts).toString();
    const body = JSON.parse(text) as JsonRpcMessage | JsonRpcMessage[];
    const [message, ...also] = [body].flat() as [JsonRpcMessage, ...JsonRpcMessage[]];
    const { headers } = request;
    const arrived = { grant, replay: headers[REPLAY_HEADER] === '1', message, also, text, headers };
    this.arrived.push(arrived);
    await this.handler(arrived, response);
  }
}

/** An agent's end of the link. */
export class ScriptedLink {
  readonly #socket: WebSocket;
  readonly #frames: DownFrame[] = [];
  readonly #waiting: ((frame: DownFrame) => void)[] = [];
  /** Settles with the close code. */
  readonly closed: Promise<number>;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('message', (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as DownFrame;
      const next = this.#waiting.shift();
      if (next) next(frame);
      else this.#frames.push(frame);
    });
  }

  /** @throws when the edge refuses the upgrade; the message has the status. */
  static async dial(edgeUrl: string, origin: string, key: JWK, ca?: Buffer): Promise<ScriptedLink> {
    const token = await signLinkToken(await importKey(key), origin, Date.now());
    const url = new URL(LINK_PATH, edgeUrl.replace('http', 'ws'));
    const headers = { [ORIGIN_HEADER]: origin, authorization: `Bearer ${token}` };
    const socket = new WebSocket(url, { headers, ...(ca ? { ca } : {}) });
    const link = new ScriptedLink(socket);
    await new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    return link;
  }

  send(frame: unknown): void {
    this.#socket.send(JSON.stringify(frame));
  }

  /** The next frame from the edge. */
  next(): Promise<DownFrame> {
    const frame = this.#frames.shift();
    return frame ? Promise.resolve(frame) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  /**
   * Announces servers, each in a machine of its own, and gives back the edge's welcome. Unless the test says otherwise,
   * nothing is answered from copies: what the client sends arrives.
   */
  async hello(
    servers: readonly string[],
    epoch = 'epoch-0001',
    { deployment = 'd1', discovery = { copies: 'none', maxAgeS: 60 } }: Partial<AnnouncedServer> = {},
  ): Promise<DownFrame> {
    this.send({
      type: 'hello',
      version: 1,
      epoch,
      agent: 'scripted',
      servers: servers.map((name) => ({ name, runtime: 'process', machine: name, deployment, discovery })),
    });
    return await this.next();
  }

  close(): void {
    this.#socket.terminate();
  }
}
