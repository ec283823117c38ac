/**
 * Owns how messages change on their last step to a client: JSON answers and event streams alike, message by message.
 *
 * Invariants: what no rewriting concerns passes byte for byte; an event keeps its id and its place; a message that cannot
 * be looked at does not pass (what was to be taken out of it would).
 */
import type { MoorageError } from '../../shared/errors.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import { failure, isResponse, type JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { dataOf, type PassedEvent, SseScanner } from '../sse.ts';

export interface Rewriting {
  /** Whether the message with this text may have to change. Cheap; in doubt it says yes. */
  concerns(text: string): boolean;
  /** The message as it may pass, itself where nothing changes; undefined when it may not. */
  rewrite(message: JsonRpcMessage, text: string): JsonRpcMessage | undefined | Promise<JsonRpcMessage | undefined>;
}

/** An answer with every message of it rewritten, each by all of `rewritings` in their order. */
export async function rewritten(response: Response, rewritings: readonly Rewriting[]): Promise<Response> {
  if (rewritings.length === 0 || !response.body) return response;
  const { status, headers } = response;
  if (headers.get('content-type')?.startsWith('text/event-stream')) {
    return new Response(streamOf(response.body, rewritings), { status, headers });
  }
  const bytes = await response.arrayBuffer();
  const text = new TextDecoder().decode(bytes);
  const changed = await change(text, rewritings);
  return new Response(changed === 'same' ? bytes : changed, { status, headers });
}

function streamOf(body: ReadableStream<Uint8Array>, rewritings: readonly Rewriting[]): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const scanner = new SseScanner();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return controller.close();
        let passed = 0;
        for (const event of scanner.push(value)) passed += await pass(event, rewritings, controller);
        if (passed > 0) return;
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

async function pass(
  event: PassedEvent,
  rewritings: readonly Rewriting[],
  controller: ReadableStreamDefaultController<Uint8Array>,
): Promise<number> {
  const data = dataOf(event);
  const changed = data ? await change(data, rewritings) : 'same';
  if (changed === '') return 0;
  if (changed === 'same') for (const part of event.parts) controller.enqueue(part);
  else controller.enqueue(new TextEncoder().encode(withData(event, changed)));
  return 1;
}

/** The text as it may pass: `same` where nothing changes, empty where it may not. */
async function change(text: string, rewritings: readonly Rewriting[]): Promise<string> {
  const concerned = rewritings.filter((each) => each.concerns(text));
  if (concerned.length === 0) return 'same';
  const read = messageIn(text);
  if (!read) return 'same';
  let message: JsonRpcMessage | undefined = read;
  for (const each of concerned) message = message && (await each.rewrite(message, text));
  if (message === read) return 'same';
  return message === undefined ? '' : JSON.stringify(message);
}

/** A client's parser takes what is no JSON for an error of its own: it holds nothing that anybody would read. */
function messageIn(text: string): JsonRpcMessage | undefined {
  try {
    const value = parseExactly(text);
    return value !== null && typeof value === 'object' ? (value as JsonRpcMessage) : undefined;
  } catch {
    return undefined;
  }
}

function withData(event: PassedEvent, data: string): string {
  const decoder = new TextDecoder();
  const text = event.parts.map((part) => decoder.decode(part, { stream: true })).join('') + decoder.decode();
  const kept = text.split(/\r?\n/).filter((line) => line !== '' && !line.startsWith('data:'));
  return `${kept.map((line) => `${line}\n`).join('')}data: ${data}\n\n`;
}

/** An error of ours in the place of a server's answer. */
export function inPlaceOf(message: JsonRpcMessage, error: MoorageError): JsonRpcMessage {
  return failure(isResponse(message) ? message.id : null, error);
}
