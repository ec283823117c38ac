/**
 * Owns that clients hear of it when a server's owner accepts tools (`moorage tools accept`): no process says so, so the edge says
 * it on the streams that it carries. The Directory tells it to each of them by a hibernating WebSocket.
 *
 * Invariants: only whole events pass, so ours never falls into one; a stream whose socket is lost ends, and its client comes
 * back.
 */
import type { JsonRpcMessage, JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import { isRecord, META } from '../../shared/rev-2026-07-28.ts';
import type { ListNews } from '../directory/listeners.ts';
import { joinDirectory } from '../directory/object.ts';
import type { Env } from '../env.ts';
import { eventOf, messageOf, type PassedEvent, SseScanner } from '../sse.ts';

const CHANGED = 'notifications/tools/list_changed';
const ACKNOWLEDGED = 'notifications/subscriptions/acknowledged';

export interface Hearing {
  readonly env: Env;
  /** Subject of the stream's principal. */
  readonly principal: string;
  /** Whether it is the client's business what a server's tools are. */
  readonly concerns: (server: string) => boolean;
  /** The `subscriptions/listen` that opened the stream (2026-07-28): only what its server acknowledges is said. */
  readonly listen?: JsonRpcRequest;
}

/** The response, on whose stream acceptances are said too. Other responses pass as they are. @throws MoorageError `overloaded`. */
export async function hearingAcceptance(response: Response, hearing: Hearing): Promise<Response> {
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
  if (response.status !== 200 || !isStream || !response.body) return response;
  const socket = await joinDirectory(hearing.env, hearing.principal).catch(async (thrown: unknown) => {
    await response.body?.cancel();
    throw thrown;
  });
  return new Response(merged(response.body.getReader(), socket, hearing), response);
}

function merged(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  socket: WebSocket,
  { concerns, listen }: Hearing,
): ReadableStream<Uint8Array> {
  const scanner = new SseScanner();
  const _meta = { [META.subscriptionId]: listen?.id };
  const said: JsonRpcMessage = { jsonrpc: '2.0', method: CHANGED, ...(listen ? { params: { _meta } } : {}) };
  /** Undefined until it is known whether the client is to be told. */
  let wanted: boolean | undefined = listen ? undefined : true;
  let early = false;
  let open = true;
  const leave = () => {
    open = false;
    socket.close(1000, 'the stream ended');
  };
  return new ReadableStream<Uint8Array>({
    start(controller) {
      socket.addEventListener('message', ({ data }) => {
        const { server, accepted } = JSON.parse(String(data)) as ListNews;
        if (!open || !accepted || !concerns(server)) return;
        if (wanted) controller.enqueue(eventOf(said));
        else early = true;
      });
      const lost = () => {
        if (!open) return;
        open = false;
        if (listen) {
          controller.enqueue(eventOf({ jsonrpc: '2.0', id: listen.id, result: { resultType: 'complete', _meta } }));
        }
        controller.close();
        void reader.cancel('the stream ended').catch(() => undefined);
      };
      socket.addEventListener('close', lost);
      socket.addEventListener('error', lost);
      socket.accept();
    },
    async pull(controller) {
      for (;;) {
        const part = await reader.read();
        if (!open) return;
        if (part.done || scanner.held > 2 * MAX_MESSAGE_BYTES) {
          leave();
          controller.close();
          return await reader.cancel();
        }
        const events = scanner.push(part.value);
        for (const event of events) {
          for (const bytes of event.parts) controller.enqueue(bytes);
          wanted ??= agreed(event);
          if (!wanted || !early) continue;
          early = false;
          controller.enqueue(eventOf(said));
        }
        if (events.length > 0) return;
      }
    },
    async cancel(reason) {
      leave();
      await reader.cancel(reason);
    },
  });
}

/** What an acknowledgement says of lists of tools; undefined for another event. */
function agreed(event: PassedEvent): boolean | undefined {
  const message = messageOf(event);
  if (!message || !('method' in message) || message.method !== ACKNOWLEDGED) return undefined;
  const { notifications } = message.params ?? {};
  return isRecord(notifications) && notifications.toolsListChanged === true;
}
