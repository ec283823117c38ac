/**
 * Owns how a request at `/mcp` is answered while servers are still being reached: JSON when that is quick, else a stream
 * whose first byte leaves at once, with keep-alive comments, and what the servers say translated as it passes.
 *
 * Invariant: the stream ends with exactly one response to the request, whatever becomes of the server's own answer.
 */
import { MoorageError, toMoorageError } from '../../shared/errors.ts';
import { failure, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS, MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import { readBounded } from '../read-message.ts';
import { respondError, STREAM_HEADERS } from '../respond.ts';
import { eventOf, messageOf, type PassedEvent, SseScanner } from '../sse.ts';

/** An answer that is there within this many milliseconds is passed on as it is. */
const QUICK_MS = 200;

export type Translate = (message: JsonRpcMessage) => JsonRpcMessage;

/** The answer to `request` from `work`, which reaches a server's endpoint, or makes a result of our own. */
export async function answerFrom(
  request: JsonRpcRequest,
  work: Promise<Response>,
  translate: Translate,
): Promise<Response> {
  // Its failure is told below; until then it must not count as unhandled.
  work.catch(() => undefined);
  const quick = await Promise.race([work.catch((thrown) => respondError(thrown, request.id)), delay(QUICK_MS)]);
  if (quick === undefined) return new Response(streamOf(request, work, translate), { headers: STREAM_HEADERS });
  if (isStream(quick))
    return new Response(streamOf(request, Promise.resolve(quick), translate), { headers: STREAM_HEADERS });
  if (quick.status !== 200) return new Response(quick.body, quick);
  return Response.json(translate(await jsonOf(quick)));
}

/** A result of our own. */
export function resultResponse(request: JsonRpcRequest, result: Record<string, unknown>): Response {
  return Response.json({ jsonrpc: '2.0', id: request.id, result });
}

function streamOf(request: JsonRpcRequest, work: Promise<Response>, translate: Translate): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let upstream: Response | undefined;
  let timer: ReturnType<typeof setInterval> | null = null;
  return new ReadableStream<Uint8Array>({
    async start(controller) {
      const keepAlive = () => controller.enqueue(encoder.encode(KEEP_ALIVE_LINE));
      keepAlive();
      timer = setInterval(keepAlive, KEEP_ALIVE_MS);
      let answered = false;
      try {
        upstream = await work;
        for await (const passed of eventsOf(upstream)) {
          const message = messageOf(passed);
          if (message === undefined) continue;
          answered ||= isResponse(message) && (message.id === request.id || message.id === null);
          controller.enqueue(withLines(passed, translate(message)));
        }
        if (!answered) throw new MoorageError('outcome_unknown', 'The server ended its answer before it was complete.');
      } catch (thrown) {
        if (!answered) controller.enqueue(eventOf(failure(request.id, toMoorageError(thrown))));
      } finally {
        clearInterval(timer);
        controller.close();
      }
    },
    async cancel(reason) {
      clearInterval(timer);
      await upstream?.body?.cancel(reason);
    },
  });
}

/** Events of an answer; JSON counts as one. */
async function* eventsOf(response: Response): AsyncGenerator<PassedEvent> {
  if (!isStream(response) || !response.body) {
    const bytes = await readBounded(response, MAX_MESSAGE_BYTES);
    yield { parts: [new TextEncoder().encode('data: '), bytes], bytes: bytes.byteLength };
    return;
  }
  const scanner = new SseScanner();
  for await (const chunk of response.body as ReadableStream<Uint8Array>) {
    yield* scanner.push(chunk);
    if (scanner.held > 2 * MAX_MESSAGE_BYTES)
      throw new MoorageError('server_failed', 'The server sent a message that is too large.');
  }
}

/** An event with another message in it; its `id` and `retry` lines stay. */
export function withLines(passed: PassedEvent, message: JsonRpcMessage): Uint8Array {
  const head = new TextDecoder().decode(passed.parts[0]?.subarray(0, 512));
  const kept = head.split(/\r?\n/).filter((line) => /^(id|retry):/.test(line));
  const event = eventOf(message);
  return kept.length === 0 ? event : concat(new TextEncoder().encode(`${kept.join('\n')}\n`), event);
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.byteLength + b.byteLength);
  both.set(a);
  both.set(b, a.byteLength);
  return both;
}

const isStream = (response: Response) => (response.headers.get('content-type') ?? '').startsWith('text/event-stream');

async function jsonOf(response: Response): Promise<JsonRpcMessage> {
  const bytes = await readBounded(response, MAX_MESSAGE_BYTES);
  return JSON.parse(new TextDecoder().decode(bytes)) as JsonRpcMessage;
}

const delay = (ms: number) => new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ms));
