/**
 * Owns the server-to-client stream of a session at `/mcp` (GET): what all its servers say unasked, in one.
 *
 * The Worker holds the client's stream and one stream to each member's endpoint; the Aggregate object tells it, over a
 * hibernating WebSocket, which members there are. Invariant: a member's stream that ends takes none of the others along.
 */
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS } from '../../shared/origin-api.ts';
import type { Env } from '../env.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { STREAM_HEADER } from '../session/object.ts';
import { eventOf, messageOf, SseScanner } from '../sse.ts';
import { type Inner, memberRequest } from './members.ts';
import { aggregateOf, type StreamNews } from './object.ts';

/** Bytes that may wait for a client to read them. */
const MAX_UNREAD_BYTES = 4 * 1024 * 1024;

export interface AggregateStreamOptions {
  readonly env: Env;
  readonly session: string;
  readonly principal: string;
  readonly version: string | null;
  readonly inner: Inner;
  /** A server's message as the client should see it. */
  readonly translate: (server: string, message: JsonRpcMessage) => JsonRpcMessage;
}

/** The answer to a GET. */
export async function openAggregateStream(options: AggregateStreamOptions): Promise<Response> {
  const headers = { upgrade: 'websocket', [STREAM_HEADER.principal]: options.principal };
  const joined = await aggregateOf(options.env, options.session).fetch('http://aggregate/', { headers });
  const socket = joined.webSocket;
  if (!socket) return new Response(joined.body, joined);
  socket.accept();
  return new Response(streamOf(socket, options), { headers: STREAM_HEADERS });
}

function streamOf(socket: WebSocket, options: AggregateStreamOptions): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const members = new Map<string, ReadableStreamDefaultReader<Uint8Array>>();
  let timer: ReturnType<typeof setInterval> | null = null;
  let open = true;
  const leave = () => {
    if (!open) return;
    open = false;
    clearInterval(timer);
    socket.close(1000, 'the stream ended');
    for (const reader of members.values()) void reader.cancel();
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const end = () => {
          if (!open) return;
          leave();
          controller.close();
        };
        const write = (bytes: Uint8Array) => {
          if (!open) return;
          controller.enqueue(bytes);
          if ((controller.desiredSize ?? 0) <= 0) end();
        };
        socket.addEventListener('message', ({ data }) => {
          const news = JSON.parse(String(data)) as StreamNews;
          if (news.type === 'say') write(eventOf(news.text));
          else void follow(news.server, news.session, options, members, write);
        });
        socket.addEventListener('close', end);
        socket.addEventListener('error', end);
        timer = setInterval(() => write(encoder.encode(KEEP_ALIVE_LINE)), KEEP_ALIVE_MS);
        write(encoder.encode(KEEP_ALIVE_LINE));
      },
      cancel: leave,
    },
    { highWaterMark: MAX_UNREAD_BYTES, size: (chunk) => chunk.byteLength },
  );
}

/** Passes on what one member says, until its stream ends or another member takes its place. */
async function follow(
  server: string,
  session: string,
  { inner, version, translate }: AggregateStreamOptions,
  members: Map<string, ReadableStreamDefaultReader<Uint8Array>>,
  write: (bytes: Uint8Array) => void,
): Promise<void> {
  const headers: Record<string, string> = { accept: 'text/event-stream', 'mcp-session-id': session };
  if (version !== null) headers['mcp-protocol-version'] = version;
  const response = await inner(server, memberRequest('GET', headers));
  if (response.status !== 200 || !response.body) {
    await response.body?.cancel();
    return;
  }
  void members.get(server)?.cancel();
  const reader = response.body.getReader();
  members.set(server, reader);
  const scanner = new SseScanner();
  // An error here is the member's stream breaking: the client's goes on without it.
  const next = () => reader.read().catch(() => ({ done: true, value: undefined }) as const);
  for (let part = await next(); !part.done && part.value; part = await next()) {
    for (const event of scanner.push(part.value as Uint8Array)) {
      const message = messageOf(event);
      if (message) write(eventOf(translate(server, message)));
    }
    if (scanner.held > MAX_UNREAD_BYTES) break;
  }
  await reader.cancel().catch(() => undefined);
  if (members.get(server) === reader) members.delete(server);
}
