/**
 * Owns who hears at once that what a server lists has changed, though no process of it need be there: Workers that hold a
 * stream of a client at `/mcp`, or at a server whose tools are pinned, each joined to the Directory by a hibernating WebSocket.
 *
 * Each carries `{ principal }`: what changed for one principal is told to his streams alone. Bound: `MAX_LISTENERS`.
 */
import type { Kind } from '../discovery/question.ts';

/** A server whose lists of these kinds changed. */
export interface ListNews {
  readonly server: string;
  readonly kinds: readonly Kind[];
  /** Its owner accepted tools: no process says so. */
  readonly accepted?: boolean;
}

/** The platform holds 32 768 WebSockets for an object (Durable Objects, "Limits"). */
const MAX_LISTENERS = 10_000;
/** Says whose stream it is. */
export const PRINCIPAL_HEADER = 'moorage-principal';

export class Listeners {
  readonly #state: DurableObjectState;

  constructor(state: DurableObjectState) {
    this.#state = state;
  }

  /** Takes the WebSocket of a Worker; only Workers reach an object. */
  accept(request: Request): Response {
    if (this.#state.getWebSockets().length >= MAX_LISTENERS) return new Response(null, { status: 503 });
    const { 0: client, 1: server } = new WebSocketPair();
    this.#state.acceptWebSocket(server);
    server.serializeAttachment({ principal: decodeURIComponent(request.headers.get(PRINCIPAL_HEADER) ?? '') });
    return new Response(null, { status: 101, webSocket: client });
  }

  /** `whose`: the principal for whom it changed; empty for everybody. */
  tell(news: ListNews, whose: string): void {
    const text = JSON.stringify(news);
    for (const socket of this.#state.getWebSockets()) {
      if (socket.readyState !== WebSocket.OPEN) continue;
      const { principal } = socket.deserializeAttachment() as { principal: string };
      if (whose === '' || whose === principal) socket.send(text);
    }
  }
}
