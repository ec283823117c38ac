/** Owns the events of an answer, whatever its form: a stream, or JSON, which counts as one. */
import { MoorageError } from '../shared/errors.ts';
import type { JsonRpcMessage } from '../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../shared/origin-api.ts';
import { readBounded } from './read-message.ts';
import { messageOf, type PassedEvent, SseScanner } from './sse.ts';

export const isStream = ({ headers }: Response): boolean =>
  headers.get('content-type')?.startsWith('text/event-stream') ?? false;

/** @throws MoorageError `server_failed` for a message that is too large. */
export async function* eventsOf(response: Response): AsyncGenerator<PassedEvent> {
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

/** The messages in them. @throws MoorageError as `eventsOf`. */
export async function* messagesIn(response: Response): AsyncGenerator<JsonRpcMessage> {
  for await (const event of eventsOf(response)) {
    const message = messageOf(event);
    if (message) yield message;
  }
}
