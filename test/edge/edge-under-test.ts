/** A real workerd with the edge in it, and a client that speaks plain HTTP to it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type EdgeOptions, type RunningEdge, startEdge } from '../../edge/local/edge.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { keepLines } from '../support/run-folder.ts';
import { keyPair, PROTOCOL, ScriptedLink, ScriptedOrigin } from './scripted-origin.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

export interface UnderTest {
  readonly url: string;
  readonly stateDir: string;
  readonly origin: ScriptedOrigin;
  readonly log: string[];
  /** Dials the link as the origin's agent, at the edge's own address or another that leads to it, by TLS of `ca`. */
  dial(at?: string, ca?: Buffer): Promise<ScriptedLink>;
  /** Ends workerd and starts it again on the same state: a crash with `SIGKILL`. Its port changes. */
  restart(signal?: 'SIGKILL'): Promise<void>;
  stop(): Promise<void>;
}

/** Starts an edge with the scripted origin `local`, whose link is not dialled. */
export async function edgeUnderTest(
  edgeServers: Readonly<Record<string, string>> = {},
  settings: Pick<
    EdgeOptions,
    'aggregate' | 'endIdleAfterMs' | 'frontSocket' | 'loopbackFetch' | 'secrets' | 'settings'
  > = {},
): Promise<UnderTest> {
  const stateDir = await mkdtemp(join(tmpdir(), 'moorage-edge-'));
  const edgeKeys = await keyPair();
  const originKeys = await keyPair();
  const origin = new ScriptedOrigin('local', join(stateDir, 'origin.sock'), edgeKeys.publicJwk);
  await origin.listen();
  const log: string[] = [];
  const start = () =>
    startEdge({
      host: '127.0.0.1',
      port: 0,
      stateDir: join(stateDir, 'edge'),
      ...settings,
      configDir: ROOT,
      edgeServers,
      edgeKey: JSON.stringify(edgeKeys.privateJwk),
      sessionSecret: 'a secret of a test, longer than 32 bytes',
      origins: [{ id: 'local', key: originKeys.publicJwk, address: `unix:${origin.socketPath}` }],
      log: (line) => log.push(line),
    });
  let edge: RunningEdge = await start();
  return {
    get url() {
      return edge.url;
    },
    stateDir,
    origin,
    log,
    dial: (at = edge.url, ca) => ScriptedLink.dial(at, 'local', originKeys.privateJwk, ca),
    restart: async (signal) => {
      if (signal) {
        process.kill(edge.pid, signal);
        await edge.exited;
      } else await edge.stop();
      edge = await start();
    },
    stop: async () => {
      // Streams and links that a test left open would hold up a gentle end.
      process.kill(edge.pid, 'SIGKILL');
      await edge.stop();
      await origin.close();
      keepLines(log);
      await rm(stateDir, { recursive: true, force: true });
    },
  };
}

/** One session's client, without any SDK: what is on the wire is what the tests are about. */
export class WireClient {
  readonly #base: () => string;
  readonly server: string;
  readonly #headers: Readonly<Record<string, string>>;
  session: string | undefined;

  /** `base` is asked at each request: a restarted edge has another port. `server` is empty for `/mcp`. */
  constructor(base: () => string, server: string, headers: Readonly<Record<string, string>> = {}) {
    this.#base = base;
    this.server = server;
    this.#headers = headers;
  }

  async initialize(protocolVersion = PROTOCOL): Promise<Response> {
    const response = await this.post({
      jsonrpc: '2.0',
      id: 'init',
      method: 'initialize',
      params: {
        protocolVersion,
        capabilities: { elicitation: {}, sampling: {} },
        clientInfo: { name: 'wire', version: '1' },
      },
    });
    this.session = response.headers.get('mcp-session-id') ?? undefined;
    return response;
  }

  post(message: JsonRpcMessage | string, headers: Record<string, string> = {}): Promise<Response> {
    return this.request('POST', {
      body: typeof message === 'string' ? message : JSON.stringify(message),
      headers: { accept: 'application/json, text/event-stream', 'content-type': 'application/json', ...headers },
    });
  }

  /** The response of a request, as the server's result or error. */
  async call(
    method: string,
    params: Record<string, unknown> = {},
    id: string | number = 1,
  ): Promise<Record<string, unknown>> {
    const response = await this.post({ jsonrpc: '2.0', id, method, params });
    return (await response.json()) as Record<string, unknown>;
  }

  get(headers: Record<string, string> = {}): Promise<Response> {
    return this.request('GET', { headers: { accept: 'text/event-stream', ...headers } });
  }

  request(method: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<Response> {
    const session: Record<string, string> = this.session === undefined ? {} : { 'mcp-session-id': this.session };
    const path = this.server === '' ? '/mcp' : `/${this.server}/mcp`;
    const headers = { ...session, ...this.#headers, ...init.headers };
    return fetch(`${this.#base()}${path}`, { method, ...init, headers });
  }
}

/** Reads a stream event by event; comments count as events without data. */
export class EventReader {
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = '';

  constructor(response: Response) {
    if (!response.body) throw new Error('the response has no body');
    this.#reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next block of the stream, or null at its end. */
  async block(): Promise<string | null> {
    for (;;) {
      const end = this.#text.indexOf('\n\n');
      if (end !== -1) {
        const block = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 2);
        return block;
      }
      const part = await this.#reader.read();
      if (part.done) return null;
      this.#text += part.value;
    }
  }

  /** The next message, or null at the end of the stream. */
  async message(): Promise<Record<string, unknown> | null> {
    for (let block = await this.block(); block !== null; block = await this.block()) {
      const data = /^data: ?(.*)$/m.exec(block)?.[1];
      if (data) return JSON.parse(data) as Record<string, unknown>;
    }
    return null;
  }

  cancel(): Promise<void> {
    return this.#reader.cancel();
  }
}
