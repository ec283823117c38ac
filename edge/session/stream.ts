/**
 * Owns a session's server-to-client stream (GET) in the Worker: the client's bytes on one side, a WebSocket that lets the
 * Session object sleep on the other.
 *
 * Invariants: the first bytes leave at once; a comment every `KEEP_ALIVE_MS` shows proxies that the stream lives, and us
 * that its client is gone; a client that does not read is cut, not buffered for.
 */
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS } from '../../shared/origin-api.ts';
import type { Env } from '../env.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { eventOf } from '../sse.ts';
import { STREAM_HEADER, sessionOf } from './object.ts';

/** Bytes that may wait for a client to read them. */
const MAX_UNREAD_BYTES = 4 * 1024 * 1024;

/** A WebSocket to the session's object; with `call`, the mailbox of that call. Or the object's refusal. */
export async function joinSession(
  env: Env,
  session: string,
  principal: string,
  call?: string,
): Promise<WebSocket | Response> {
  const headers = new Headers({ upgrade: 'websocket', [STREAM_HEADER.session]: session });
  headers.set(STREAM_HEADER.principal, principal);
  if (call !== undefined) headers.set(STREAM_HEADER.call, call);
  const response = await sessionOf(env, session).fetch('http://session/', { headers });
  if (!response.webSocket) return response;
  response.webSocket.accept();
  return response.webSocket;
}

/** The answer to a GET. */
export async function openStream(env: Env, session: string, principal: string): Promise<Response> {
  const socket = await joinSession(env, session, principal);
  // The refusal of an object is copied: headers of a fetched response cannot be added to.
  if (socket instanceof Response) return new Response(socket.body, socket);
  return new Response(streamOf(socket), { headers: STREAM_HEADERS });
}

function streamOf(socket: WebSocket): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let timer: ReturnType<typeof setInterval> | null = null;
  let open = true;
  const leave = (code: number, reason: string) => {
    open = false;
    clearInterval(timer);
    socket.close(code, reason);
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const close = () => {
          if (!open) return;
          open = false;
          clearInterval(timer);
          controller.close();
        };
        const write = (bytes: Uint8Array) => {
          if (!open) return;
          controller.enqueue(bytes);
          if ((controller.desiredSize ?? 0) > 0) return;
          leave(1013, 'the client does not read its stream');
          controller.close();
        };
        socket.addEventListener('message', ({ data }) => {
          if (typeof data === 'string') write(eventOf(data));
        });
        socket.addEventListener('close', close);
        socket.addEventListener('error', close);
        timer = setInterval(() => write(encoder.encode(KEEP_ALIVE_LINE)), KEEP_ALIVE_MS);
        write(encoder.encode(': connected\n\n'));
      },
      cancel: () => leave(1000, 'the client left'),
    },
    { highWaterMark: MAX_UNREAD_BYTES, size: (chunk) => chunk.byteLength },
  );
}
