/**
 * Owns the agent's WebSocket to the edge (`shared/link.ts`): dials, announces the servers, sends events, dials again.
 *
 * States: dialling, open, waiting (for the next dial), closed. Invariants: one socket at a time; a new connection says
 * `hello` first and then repeats every event that was not acknowledged; a silent connection is given up.
 */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { CryptoKey } from 'jose';
import WebSocket from 'ws';
import { signLinkToken } from '../../shared/grant.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import {
  type AnnouncedServer,
  type ChangedLane,
  downFrame,
  LINK_PATH,
  LINK_VERSION,
  MAX_LINK_FRAME_BYTES,
  ORIGIN_HEADER,
  PING,
  PING_EVERY_MS,
  PONG,
  type UpFrame,
} from '../../shared/link.ts';
import { isRefusalInFront } from '../../shared/service-token.ts';
import type { Log } from '../log.ts';
import { Outbox } from './outbox.ts';

export interface LinkOptions {
  /** Base URL of the edge, such as `http://127.0.0.1:8787`. */
  readonly edgeUrl: string;
  /** Sent along when it dials. Secret. */
  readonly headers: Readonly<Record<string, string>>;
  readonly originId: string;
  readonly key: () => Promise<CryptoKey>;
  readonly agentVersion: string;
  /** What this origin serves now. */
  readonly servers: () => readonly AnnouncedServer[];
  /** Called with the edge's clock, in milliseconds, and its statement about its keys, whenever the edge tells them. */
  readonly onWelcome: (edge: { readonly now: number; readonly keys: string }) => void;
  readonly log: Log;
}

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Failures in a row after which the owner is told. */
const SAID_AFTER = 3;
const ANNOUNCE_WITHIN_MS = 5_000;

/** A server that the edge does not take from this origin. */
export interface Refusal {
  readonly server: string;
  readonly reason: string;
}

export class Link {
  readonly #options: LinkOptions;
  readonly #epoch = randomBytes(12).toString('base64url');
  readonly #outbox = new Outbox();
  #socket: WebSocket | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  /** Who waits for the edge's word on what was announced. */
  readonly #waiting = new Set<(refused: readonly Refusal[]) => void>();
  #closed = false;
  #welcomed: () => void = () => undefined;
  /** Resolves at the first `welcome`. */
  readonly ready: Promise<void>;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.ready = new Promise((resolve) => {
      this.#welcomed = resolve;
    });
    void this.#dial();
  }

  /** Sends what a server said unasked, now or when the link is back. */
  publish(sessions: readonly string[], message: JsonRpcMessage, starting = false, lane?: ChangedLane): void {
    const frame = this.#outbox.add(sessions, message, starting, lane);
    if (frame === undefined)
      this.#options.log.warn('an unasked message of a server was too large for the link and was dropped');
    else if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(frame);
  }

  /**
   * Tells the edge of other servers than before. Resolves with those that it does not take and why, or undefined where it
   * does not answer: it is told when it is back.
   */
  async announce(): Promise<readonly Refusal[] | undefined> {
    if (this.#socket?.readyState !== WebSocket.OPEN) return undefined;
    const welcome = new Promise<readonly Refusal[]>((resolve) => this.#waiting.add(resolve));
    this.#socket.send(JSON.stringify(this.#hello()));
    const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ANNOUNCE_WITHIN_MS).unref());
    return await Promise.race([welcome, late]);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1001, 'agent stops');
    this.#socket?.terminate();
  }

  async #dial(): Promise<void> {
    const { edgeUrl, headers, originId, key, log } = this.#options;
    const token = await key()
      .then((found) => signLinkToken(found, originId, Date.now()))
      .catch((error: Error) => void log.warn(`link: this origin's key cannot be used: ${error.message}`));
    if (this.#closed) return;
    if (token === undefined) return this.#again();
    const url = new URL(LINK_PATH, edgeUrl);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url, {
      headers: { ...headers, authorization: `Bearer ${token}`, [ORIGIN_HEADER]: originId },
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      maxPayload: MAX_LINK_FRAME_BYTES,
    });
    this.#socket = socket;
    let silent = 0;
    let refused = false;
    const heartbeat = setInterval(() => {
      if (socket.readyState !== WebSocket.OPEN) return;
      if (++silent > 2) socket.terminate();
      else socket.send(PING);
    }, PING_EVERY_MS);
    socket.on('open', () => {
      socket.send(JSON.stringify(this.#hello()));
      for (const frame of this.#outbox.unacknowledged()) socket.send(frame);
    });
    socket.on('message', (data) => {
      silent = 0;
      const text = data.toString();
      if (text !== PONG) this.#received(text);
    });
    socket.on('error', (error) => {
      log.debug(`link: ${error.message}`);
      // Once in an outage, and not for the moment in which an edge is started anew.
      if (!refused && this.#failures === SAID_AFTER)
        log.warn(`link: the edge at ${url.host} does not answer (${error.message})`);
    });
    socket.on('unexpected-response', (_request, response) => {
      refused = true;
      log.warn(`link: ${refusalOf(response)}`);
      response.resume();
      socket.terminate();
    });
    socket.on('close', () => {
      clearInterval(heartbeat);
      if (!this.#closed && this.#socket === socket) this.#again();
    });
  }

  #again(): void {
    this.#failures++;
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#failures, 10));
    // Full jitter: origins do not all come back in the same instant after an edge restart.
    this.#timer = setTimeout(() => void this.#dial(), FIRST_WAIT_MS + Math.random() * (longest - FIRST_WAIT_MS));
  }

  #hello(): UpFrame {
    return {
      type: 'hello',
      version: LINK_VERSION,
      epoch: this.#epoch,
      agent: this.#options.agentVersion,
      servers: [...this.#options.servers()],
    };
  }

  #received(text: string): void {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = undefined;
    }
    const frame = downFrame.safeParse(value);
    if (!frame.success) {
      this.#options.log.warn('link: the edge sent a frame that this agent does not know; is one of them older?');
      return;
    }
    if (frame.data.type === 'ack') {
      this.#outbox.acknowledge(frame.data.seq);
      return;
    }
    this.#failures = 0;
    for (const resolve of this.#waiting) resolve(frame.data.refused);
    this.#waiting.clear();
    this.#options.onWelcome(frame.data);
    for (const { server, reason } of frame.data.refused) {
      this.#options.log.warn(`the edge does not take server "${server}" from this origin: ${reason}`);
    }
    this.#welcomed();
  }
}

/** Who refused the upgrade: the edge answers as JSON, with 401; what stands in front of it as it likes. */
function refusalOf({ statusCode = 0, headers }: IncomingMessage): string {
  const isEdge = statusCode === 401 && headers['content-type']?.startsWith('application/json');
  return isEdge || !isRefusalInFront(statusCode)
    ? `the edge refused this origin (HTTP ${statusCode}); is it enrolled there with this key?`
    : `what stands in front of the edge, such as Cloudflare Access, refused this origin (HTTP ${statusCode}); is its service token in MOORAGE_EDGE_ACCESS?`;
}
