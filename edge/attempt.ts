/**
 * Owns what becomes of a request that was sent to an origin: each attempt's end, and the one answer that the client gets.
 *
 * Invariants: a request that may have been carried out is sent again only where `loss.ts` allows it, once, and only while
 * the client has seen nothing of it; it is always answered, by the server or by an error that says what is known.
 */
import { MoorageError, toMoorageError } from '../shared/errors.ts';
import {
  failure,
  isResponse,
  type JsonRpcFailure,
  type JsonRpcMessage,
  type JsonRpcRequest,
} from '../shared/jsonrpc.ts';
import { FAILURE_HEADER, LISTS_HEADER, MAX_MESSAGE_BYTES } from '../shared/origin-api.ts';
import { explain, isRepeatable, type Loss, type LostRequest } from './loss.ts';
import { type RelayOptions, relay } from './origin/relay.ts';
import { readBounded } from './read-message.ts';
import { STREAM_HEADERS } from './respond.ts';
import { eventOf, messageOf } from './sse.ts';

/** How one attempt ended. `own`: the lists of the process that answered are its own affair. */
export type Attempt =
  | { readonly type: 'whole'; readonly bytes: Uint8Array; readonly own: boolean }
  | { readonly type: 'stream'; readonly body: ReadableStream<Uint8Array>; readonly own: boolean }
  | { readonly type: 'lost'; readonly loss: Loss };

/** A request on its way, and how it is sent. */
export interface Sent extends LostRequest {
  readonly message: JsonRpcRequest;
  readonly once: () => Promise<Attempt>;
  /** How its stream is found again, and when it ends for its client to come back. */
  readonly stream?: Pick<RelayOptions, 'reattach' | 'endIdleAfterMs'>;
  /** Called with the response to the request before the client sees it. */
  readonly onAnswer?: ((answer: JsonRpcMessage, own: boolean) => Promise<void>) | undefined;
  /** The response as the client is told it; the same object where it is as it came. */
  readonly told?: ((answer: JsonRpcMessage) => JsonRpcMessage) | undefined;
  /** The client would rather have an event stream than JSON. */
  readonly preferStream?: boolean;
}

/** The answer to a request. @throws MoorageError. */
export async function answerTo(sent: Sent): Promise<Response> {
  let attempt = await sent.once();
  let repeated = false;
  if (attempt.type === 'lost') {
    const repeatable = await isRepeatable(sent, attempt.loss);
    if (repeatable && !attempt.loss.unsent) {
      repeated = true;
      attempt = await sent.once();
    }
    if (attempt.type === 'lost') throw await explain(sent, attempt.loss, repeatable);
  }
  if (attempt.type === 'stream') return new Response(streamed(sent, attempt, !repeated), { headers: STREAM_HEADERS });
  const bytes = await settled(sent, attempt.bytes, attempt.own);
  return sent.preferStream
    ? new Response(eventOf(new TextDecoder().decode(bytes)), { headers: STREAM_HEADERS })
    : new Response(bytes, { headers: { 'content-type': 'application/json' } });
}

/** What an origin's response with status 200 is. A JSON answer is read whole: half a message must not reach the client. */
export async function attemptOf(response: Response): Promise<Attempt> {
  const own = response.headers.get(LISTS_HEADER) === 'changed';
  const type = response.headers.get('content-type') ?? '';
  if (type.startsWith('text/event-stream') && response.body) return { type: 'stream', body: response.body, own };
  try {
    const bytes = await readBounded(response, MAX_MESSAGE_BYTES);
    if (response.headers.get(FAILURE_HEADER) !== 'outcome_unknown') return { type: 'whole', bytes, own };
    return { type: 'lost', loss: { unsent: false, failure: parsed(bytes) as JsonRpcFailure } };
  } catch (thrown) {
    if (thrown instanceof MoorageError) {
      throw new MoorageError('server_failed', `The server's answer is larger than ${MAX_MESSAGE_BYTES} bytes.`);
    }
    return { type: 'lost', loss: { unsent: false, failure: null } };
  }
}

/** A stream that begins anew when it is lost before it said anything, if `mayRepeat` and the request allow it. */
function streamed(
  sent: Sent,
  first: Extract<Attempt, { type: 'stream' }>,
  mayRepeat: boolean,
): ReadableStream<Uint8Array> {
  const { message, onAnswer, told } = sent;
  let { own } = first;
  const beginAnew = async (loss: Loss) => {
    if (!(await isRepeatable(sent, loss))) return undefined;
    const attempt = await sent.once();
    if (attempt.type === 'lost') return failure(message.id, await explain(sent, attempt.loss, true));
    own = attempt.own;
    if (attempt.type === 'stream') return attempt.body;
    return parsed(await settled(sent, attempt.bytes, own));
  };
  return relay(first.body, {
    ...sent.stream,
    request: message.id,
    onAnswer: onAnswer && ((answer) => onAnswer(answer, own)),
    told,
    beginAnew: mayRepeat
      ? (loss) => beginAnew(loss).catch((thrown: unknown) => failure(message.id, toMoorageError(thrown)))
      : undefined,
    giveUp: async (why) => {
      const tooLarge = new MoorageError('server_failed', 'The server sent a message that is too large.');
      const error = why === 'too-large' ? tooLarge : await explain(sent, why, await isRepeatable(sent, why));
      return failure(message.id, error);
    },
  });
}

/** The response as its client is told it, once whoever waits for it has seen it. */
async function settled({ message, onAnswer, told }: Sent, bytes: Uint8Array, own: boolean): Promise<Uint8Array> {
  if (!onAnswer && !told) return bytes;
  const answer = parsed(bytes);
  if (!answer || !isResponse(answer) || answer.id !== message.id) {
    throw new MoorageError('server_failed', 'The server answered with something that is no response to the request.');
  }
  await onAnswer?.(answer, own);
  const instead = told?.(answer) ?? answer;
  return instead === answer ? bytes : new TextEncoder().encode(JSON.stringify(instead));
}

const parsed = (bytes: Uint8Array): JsonRpcMessage | undefined =>
  messageOf({ parts: [new TextEncoder().encode('data:'), bytes], bytes: bytes.byteLength });

export const unanswered = (): MoorageError =>
  new MoorageError('server_failed', 'The origin took the request and gave no answer.');
