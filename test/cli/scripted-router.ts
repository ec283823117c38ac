/** The endpoint of a router that does what a test tells it to: sessions, refusals, streams that end too early. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';

export interface Posted {
  readonly message: JsonRpcMessage;
  readonly headers: IncomingMessage['headers'];
}

type Answer = (request: JsonRpcRequest, response: ServerResponse) => void;

export const event = (message: object) => `event: message\ndata: ${JSON.stringify({ jsonrpc: '2.0', ...message })}\n\n`;

export class ScriptedRouter {
  readonly posted: Posted[] = [];
  readonly ended: string[] = [];
  /** The streams that clients hold, by session. */
  readonly streams = new Map<string, ServerResponse>();
  /** Where it listens, or did. */
  port = 0;
  /** Sessions that are known. */
  readonly sessions = new Set<string>();
  /** What answers requests other than initialize. */
  answer: Answer = (request, response) => this.result(request, response, { echoed: request.method });
  /** Answers a request at once, whatever it is. */
  refuse: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
  readonly #server = createServer((request, response) => void this.#serve(request, response));
  #count = 0;

  async listen(port = 0): Promise<void> {
    await once(this.#server.listen(port, '127.0.0.1'), 'listening');
    this.port = (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** Messages that were posted, by method; answers as `answer`. */
  get methods(): string[] {
    return this.posted.map(({ message }) => ('method' in message ? message.method : 'answer'));
  }

  result({ id }: JsonRpcRequest, response: ServerResponse, result: object): void {
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ jsonrpc: '2.0', id, result }));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = (await request.toArray()).join('');
    if (this.refuse?.(request, response)) return;
    const session = request.headers['mcp-session-id'];
    if (typeof session === 'string' && !this.sessions.has(session)) {
      const error = { code: -32001, message: 'Session not found' };
      response.writeHead(404, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error }));
      return;
    }
    if (request.method === 'DELETE') {
      this.ended.push(String(session));
      response.writeHead(204).end();
    } else if (request.method === 'GET') {
      this.streams.set(String(session), response.writeHead(200, { 'content-type': 'text/event-stream' }));
      response.write(': connected\n\n');
    } else this.#post(JSON.parse(body), request, response);
  }

  #post(message: JsonRpcMessage, { headers }: IncomingMessage, response: ServerResponse): void {
    this.posted.push({ message, headers });
    if (!('method' in message) || !('id' in message)) {
      response.writeHead(202).end();
    } else if (message.method === 'initialize') {
      const session = `s${++this.#count}`;
      this.sessions.add(session);
      response.setHeader('mcp-session-id', session);
      const { protocolVersion } = message.params as { protocolVersion: string };
      this.result(message, response, { protocolVersion, capabilities: {}, serverInfo: { name: 's', version: '1' } });
    } else this.answer(message, response);
  }
}
