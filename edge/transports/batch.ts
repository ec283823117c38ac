/**
 * Owns JSON-RPC batches, which 2025-03-26 alone has: each message is served as if it had come alone, and all answers leave
 * on one event stream (2025-03-26, basic/transports, "Sending Messages to the Server").
 *
 * The first message goes ahead: when it is refused (no session, another era), the batch is refused and nothing else ran.
 */
import { MoorageError } from '../../shared/errors.ts';
import { isRequest, type JsonRpcMessage, parseMessage } from '../../shared/jsonrpc.ts';
import { REVISION_HEADER } from '../../shared/mirrored-headers.ts';
import { claimsModern } from '../../shared/rev-2026-07-28.ts';
import { ASSUMED_REVISION } from '../../shared/revision.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { Funnel } from './funnel.ts';

/** Messages that one batch may hold. */
const MAX_BATCH = 100;

/**
 * The messages of a batch. `revision` is the request's version header; without one it is 2025-03-26.
 * @throws MoorageError `invalid_request`.
 */
export function readBatch(values: readonly unknown[], revision: string | null): JsonRpcMessage[] {
  const refuse = (why: string) => new MoorageError('invalid_request', why);
  if (revision !== null && revision.trim() !== ASSUMED_REVISION) {
    throw refuse(`Only ${ASSUMED_REVISION} has batches: POST one JSON-RPC message at a time.`);
  }
  if (values.length === 0) throw refuse('The batch is empty.');
  if (values.length > MAX_BATCH) throw refuse(`A batch may hold ${MAX_BATCH} messages.`);
  const messages = values.map((value) => parseMessage(value));
  for (const message of messages) {
    if (!('method' in message)) continue;
    if (message.method === 'initialize') throw refuse('initialize comes alone, not in a batch.');
    if (claimsModern(message.params)) throw refuse('Messages of 2026-07-28 come one by one.');
  }
  return messages;
}

/** Answers a batch. `serve` answers one message as the endpoint does; its failures are answers too. */
export async function serveBatch(
  request: Request,
  values: readonly unknown[],
  serve: (request: Request) => Promise<Response>,
  waitUntil: (promise: Promise<unknown>) => void,
): Promise<Response> {
  const messages = readBatch(values, request.headers.get(REVISION_HEADER));
  const send = (message: JsonRpcMessage) => serve(aloneLike(request, message));
  const [first, ...others] = messages;
  const leading = first && (await send(first));
  if (!leading || leading.status >= 400) return leading ?? new Response(null, { status: 202 });
  const funnel = messages.some(isRequest) ? new Funnel() : undefined;
  const rest = async () => {
    const pouring = [funnel?.pour(leading)];
    for (const message of others) {
      const answer = send(message);
      if (isRequest(message)) pouring.push(answer.then((response) => funnel?.pour(response)));
      // What is merely told takes effect before what is asked after it.
      else await (await answer).body?.cancel();
    }
    await Promise.all(pouring);
  };
  const done = rest().finally(() => funnel?.close());
  if (!funnel) {
    await done;
    return new Response(null, { status: 202 });
  }
  funnel.write(': open\n\n');
  waitUntil(done);
  return new Response(funnel.body, { headers: STREAM_HEADERS });
}

/** The request as it would have come with `message` alone. */
function aloneLike({ url, headers }: Request, message: JsonRpcMessage): Request {
  const own = new Headers(headers);
  own.delete('content-length');
  return new Request(url, { method: 'POST', headers: own, body: JSON.stringify(message) });
}
