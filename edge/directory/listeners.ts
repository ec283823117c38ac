/**
 * Owns who hears at once that what a server lists has changed, though no process of it need be there: Workers that hold a
 * listening stream of a client, at a server or at `/mcp`, or the stream of a session at a server whose tools are pinned, each
 * joined to the Directory by a hibernating WebSocket.
 *
 * Each carries `Listener`: what changed for one principal is told to his streams alone. Bounds: `MAX_LISTENERS`, and
 * `MAX_OF_ONE` of a principal.
 */
import type { Kind } from '../discovery/question.ts';

/** A server whose lists of these kinds changed. */
export interface ListNews {
  readonly server: string;
  readonly kinds: readonly Kind[];
  /** Its owner accepted tools: no process says so. */
  readonly accepted?: boolean;
  /** A process says so, and lists what is known already: told to those who listen at the server itself. */
  readonly unchanged?: true;
  /** Its origin is trusted no more: told to those who listen at the server itself. */
  readonly revoked?: true;
}

/** Whose stream it is, and where: at one server, or (null) at all. */
export interface Listener {
  readonly principal: string;
  readonly server: string | null;
}

/** The platform holds 32 768 WebSockets for an object (Durable Objects, "Limits"). */
const MAX_LISTENERS = 10_000;
const MAX_OF_ONE = 1000;
/** `Listener` as JSON, encoded as a component of a URI. */
export const LISTENER_HEADER = 'moorage-listener';

export class Listeners {
  readonly #state: DurableObjectState;

  constructor(state: DurableObjectState) {
    this.#state = state;
  }

  /** Takes the WebSocket of a Worker; only Workers reach an object. */
  accept(request: Request): Response {
    const listener = JSON.parse(decodeURIComponent(request.headers.get(LISTENER_HEADER) ?? '')) as Listener;
    const open = this.#state.getWebSockets();
    const own = open.filter((socket) => listenerOf(socket).principal === listener.principal);
    if (open.length >= MAX_LISTENERS || own.length >= MAX_OF_ONE) return new Response(null, { status: 503 });
    const { 0: client, 1: server } = new WebSocketPair();
    this.#state.acceptWebSocket(server);
    server.serializeAttachment(listener);
    return new Response(null, { status: 101, webSocket: client });
  }

  /** `whose`: the principal for whom it changed; empty for everybody. */
  tell(news: ListNews, whose: string): void {
    const text = JSON.stringify(news);
    for (const socket of this.#state.getWebSockets()) {
      if (socket.readyState !== WebSocket.OPEN) continue;
      const { principal, server } = listenerOf(socket);
      const here = server === null ? !news.unchanged && !news.revoked : server === news.server;
      if (here && (whose === '' || whose === principal)) socket.send(text);
    }
  }
}

/** As `accept` wrote it. */
const listenerOf = (socket: WebSocket): Listener => socket.deserializeAttachment() as Listener;
