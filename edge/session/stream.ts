/**
 * Owns what a Session object sends down a client's stream (GET), in the Worker: the client's bytes on one side, a WebSocket
 * that lets the object sleep on the other. It carries the session's own stream, or the rest of an edge server's call.
 *
 * Invariants: the first bytes leave at once; a comment every `KEEP_ALIVE_MS` shows proxies that the stream lives, and us
 * that its client is gone; a client that does not read is cut, not buffered for.
 */
import { eventText, primingText } from '../../shared/event-stream.ts';
import type { RequestId } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS } from '../../shared/origin-api.ts';
import type { Env } from '../env.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { STREAM_HEADER, sessionOf } from './object.ts';

/** Bytes that may wait for a client to read them. */
const MAX_UNREAD_BYTES = 4 * 1024 * 1024;

/** A WebSocket to the mailbox of a call of the session, whose stream begins with it. Or the object's refusal. */
export function joinCall(
  env: Env,
  session: string,
  principal: string,
  call: string,
  request: RequestId,
): Promise<WebSocket | Response> {
  const headers = { [STREAM_HEADER.call]: call, [STREAM_HEADER.request]: encodeURIComponent(JSON.stringify(request)) };
  return join(env, session, principal, headers);
}

/** The answer to a GET: what the session's object sends after `lastEvent`, or from now on. */
export async function openStream(env: Env, session: string, principal: string, lastEvent?: string): Promise<Response> {
  const headers = lastEvent === undefined ? {} : { [STREAM_HEADER.lastEvent]: lastEvent };
  const socket = await join(env, session, principal, headers);
  // The refusal of an object is copied: headers of a fetched response cannot be added to.
  if (socket instanceof Response) return new Response(socket.body, socket);
  return new Response(streamOf(socket), { headers: STREAM_HEADERS });
}

async function join(
  env: Env,
  session: string,
  principal: string,
  more: Readonly<Record<string, string>>,
): Promise<WebSocket | Response> {
  const headers = new Headers({ ...more, upgrade: 'websocket', [STREAM_HEADER.session]: session });
  headers.set(STREAM_HEADER.principal, principal);
  const response = await sessionOf(env, session).fetch('http://session/', { headers });
  if (!response.webSocket) return response;
  response.webSocket.accept();
  return response.webSocket;
}

/** A frame of the object (`object.ts`) as an event. */
function eventOfFrame(frame: string): string {
  const end = frame.indexOf('\n');
  const [id, text] = [frame.slice(0, end), frame.slice(end + 1)];
  if (id === '') return `event: message\ndata: ${text}\n\n`;
  return text === '' ? primingText(id) : eventText(id, text);
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
          if (typeof data === 'string') write(encoder.encode(eventOfFrame(data)));
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
