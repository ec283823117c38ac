/**
 * Owns how a request at `/mcp` is answered while servers are still being reached: JSON when that is quick, else a stream
 * whose first byte leaves at once, with keep-alive comments, and what the servers say translated as it passes.
 *
 * Invariant: the stream ends with exactly one response to the request, whatever becomes of the server's own answer.
 */
import { MoorageError, toMoorageError } from '../../shared/errors.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import { failure, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE, KEEP_ALIVE_MS, MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import { eventsOf, isStream } from '../events-of.ts';
import { readBounded } from '../read-message.ts';
import { respondError, STREAM_HEADERS } from '../respond.ts';
import { eventOf, idOf, messageOf, type PassedEvent, SseScanner } from '../sse.ts';

/** An answer that is there within this many milliseconds is passed on as it is. */
const QUICK_MS = 200;

export type Translate = (message: JsonRpcMessage) => JsonRpcMessage;
/** The id of a server's event at `/mcp`, where a client that comes back must find the server again. */
export type Rename = (id: string) => string;

/** The answer to `request` from `work`, which reaches a server's endpoint, or makes a result of our own. */
export async function answerFrom(
  request: JsonRpcRequest,
  work: Promise<Response>,
  translate: Translate,
  rename?: Rename,
): Promise<Response> {
  // Its failure is told below; until then it must not count as unhandled.
  work.catch(() => undefined);
  const quick = await Promise.race([work.catch((thrown) => respondError(thrown, request.id)), delay(QUICK_MS)]);
  if (quick === undefined) return new Response(streamOf(request, work, translate, rename), { headers: STREAM_HEADERS });
  if (isStream(quick))
    return new Response(streamOf(request, Promise.resolve(quick), translate, rename), { headers: STREAM_HEADERS });
  if (quick.status !== 200) return new Response(quick.body, quick);
  return Response.json(translate(await jsonOf(quick)));
}

/** A result of our own. */
export function resultResponse(request: JsonRpcRequest, result: Record<string, unknown>): Response {
  return Response.json({ jsonrpc: '2.0', id: request.id, result });
}

function streamOf(
  request: JsonRpcRequest,
  work: Promise<Response>,
  translate: Translate,
  rename?: Rename,
): ReadableStream<Uint8Array> {
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
          if (message === undefined) {
            if (rename && idOf(passed) !== undefined)
              controller.enqueue(encoder.encode(`${linesOf(passed, rename)}data: \n\n`));
            continue;
          }
          answered ||= isResponse(message) && (message.id === request.id || message.id === null);
          controller.enqueue(withLines(passed, translate(message), rename));
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

/** An event with another message in it; its `id` and `retry` lines stay where a client can come back by them. */
function withLines(passed: PassedEvent, message: JsonRpcMessage, rename?: Rename): Uint8Array {
  const event = eventOf(message);
  return rename ? concat(new TextEncoder().encode(linesOf(passed, rename)), event) : event;
}

/** The `id` and `retry` lines of an event, each with its line break. */
function linesOf(passed: PassedEvent, rename: Rename): string {
  const head = new TextDecoder().decode(passed.parts[0]?.subarray(0, 512));
  const kept = head.split(/\r?\n/).filter((line) => /^(id|retry):/.test(line));
  return kept.map((line) => `${line.startsWith('id:') ? `id: ${rename(line.slice(3).trim())}` : line}\n`).join('');
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.byteLength + b.byteLength);
  both.set(a);
  both.set(b, a.byteLength);
  return both;
}

/**
 * The rest of a stream of one server, for a client that came back: another answer than a stream is passed on as it is.
 */
export function restFrom(rest: Response, translate: Translate, rename: Rename): Response {
  if (rest.status !== 200 || !rest.body) return new Response(rest.body, rest);
  const scanner = new SseScanner();
  const passing = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      for (const passed of scanner.push(chunk)) {
        const message = messageOf(passed);
        if (message) controller.enqueue(withLines(passed, translate(message), rename));
        else if (idOf(passed) === undefined) for (const part of passed.parts) controller.enqueue(part);
        else controller.enqueue(new TextEncoder().encode(`${linesOf(passed, rename)}data: \n\n`));
      }
    },
  });
  return new Response(rest.body.pipeThrough(passing), { headers: STREAM_HEADERS });
}

async function jsonOf(response: Response): Promise<JsonRpcMessage> {
  const bytes = await readBounded(response, MAX_MESSAGE_BYTES);
  return parseExactly(new TextDecoder().decode(bytes)) as JsonRpcMessage;
}

const delay = (ms: number) => new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ms));
