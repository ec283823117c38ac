/**
 * Owns how a Worker learns that a credential was revoked while it serves a stream: a hibernating WebSocket to the object that
 * knows the credential, which closes it at that moment.
 *
 * Invariant: the object looks at the credential and takes the WebSocket in one step, so nothing is revoked in between.
 */
import type { Watch } from './ending.ts';

/** Streams that may wait for the end of their credentials at one object. The platform's bound is 32 768 WebSockets. */
const MAX_WATCHERS = 30_000;
const UNTIL_HEADER = 'moorage-until';

/**
 * An object's answer to a Worker that wants to watch a credential which lives.
 * `tags`: what is revoked together, at most 256 characters each.
 */
export function acceptWatch(state: DurableObjectState, tags: string[], until: number | null): Response {
  if (state.getWebSockets().length >= MAX_WATCHERS) return new Response(null, { status: 503 });
  const { 0: client, 1: server } = new WebSocketPair();
  state.acceptWebSocket(server, tags);
  const headers: Record<string, string> = until === null ? {} : { [UNTIL_HEADER]: String(until) };
  return new Response(null, { status: 101, webSocket: client, headers });
}

/** An object's answer when there is nothing to watch (any more). */
export const nothingToWatch = (): Response => new Response(null, { status: 410 });

/** Asks an object, which `asked` tells of what. Null: the credential lives no more, or nobody could tell. */
export async function watchAt(
  object: DurableObjectStub,
  asked: Readonly<Record<string, string>>,
): Promise<Watch | null> {
  const response = await object.fetch('http://watch/', { headers: { upgrade: 'websocket', ...asked } });
  const { webSocket: socket } = response;
  if (!socket) return null;
  socket.accept();
  const until = response.headers.get(UNTIL_HEADER);
  return { socket, until: until === null ? null : Number(until) };
}
