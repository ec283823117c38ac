/**
 * Owns the carrying of one message of an admitted session to its origin, and of the answer back.
 *
 * Invariants: a message is repeated only where the origin said that it did not take it; a request is always answered,
 * by the server or by an error that says what is known; a disconnected client cancels nothing (before 2026-07-28).
 */
import { MoorageError } from '../shared/errors.ts';
import { failure, isRequest, isResponse, type JsonRpcMessage, type JsonRpcRequest } from '../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES, PREFER_HEADER, REVISION_HEADER } from '../shared/origin-api.ts';
import type { OriginRoute } from './directory/route.ts';
import type { Env } from './env.ts';
import { Broken, postMessage } from './origin/client.ts';
import { relay } from './origin/relay.ts';
import { reattach } from './origin/resume.ts';
import { unwrap } from './outcome.ts';
import { readBounded } from './read-message.ts';
import { STREAM_HEADERS } from './respond.ts';
import { initializeOf, restoringRequests } from './session/memory.ts';
import { type Admission, sessionOf } from './session/object.ts';
import { messageOf } from './sse.ts';

export interface Carried {
  readonly env: Env;
  readonly session: string;
  readonly principal: string;
  readonly admission: Admission;
  readonly message: JsonRpcMessage;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The client would rather have an event stream than JSON. */
  readonly preferStream: boolean;
  /** A stream is ended after this long without a message, in milliseconds: the client comes back for the rest. */
  readonly endIdleAfterMs: number | undefined;
  /** Called with the response to the request before the client sees it. */
  readonly onAnswer?: (answer: JsonRpcMessage) => Promise<void>;
}

/** What it takes to bring an answer back. */
export type Awaiting = Pick<Carried, 'env' | 'message' | 'onAnswer'> & { readonly admission: Pick<Admission, 'route'> };

/** Methods that change nothing that matters when they are repeated: everything of MCP but the calling of tools. */
const HARMLESS =
  /^(initialize|ping|server\/discover|subscriptions\/listen|completion\/complete|logging\/setLevel|(tools|prompts|resources|resources\/templates|roots)\/list|prompts\/get|resources\/(read|subscribe|unsubscribe)|tasks\/(get|list|result|cancel))$/;

/** Carries a message. @throws MoorageError. */
export async function dispatch(carried: Carried): Promise<Response> {
  const { message } = carried;
  let response: Response;
  try {
    response = await send(carried);
  } catch (thrown) {
    throw thrown instanceof Broken ? await explain(carried, thrown.unsent) : thrown;
  }
  if (!isRequest(message) || response.status !== 200) {
    await response.body?.cancel();
    if (isRequest(message)) throw new MoorageError('server_failed', 'The origin took the request and gave no answer.');
    return new Response(null, { status: 202 });
  }
  const type = response.headers.get('content-type') ?? '';
  if (type.startsWith('text/event-stream') && response.body) {
    return new Response(guard(response.body, carried, message, carried), { headers: STREAM_HEADERS });
  }
  return await wholeAnswer(response, carried, message);
}

/** One message to the origin; once again after the session was restored there, or after it was found elsewhere. */
async function send(carried: Carried): Promise<Response> {
  const { env, session, message, bytes, preferStream } = carried;
  const { revision } = carried.admission;
  const headers = {
    ...(revision === null ? {} : { [REVISION_HEADER]: revision }),
    ...(preferStream ? { [PREFER_HEADER]: 'stream' } : {}),
  };
  let { route, grant, restore } = carried.admission;
  let restored = false;
  let rerouted = false;
  for (;;) {
    const { origin } = route as OriginRoute;
    try {
      return await postMessage(env, origin, grant ?? '', bytes, false, { headers });
    } catch (thrown) {
      if (!(thrown instanceof MoorageError)) throw thrown;
      if (thrown.code === 'session_unknown' && !restored) {
        // There is nothing to tell a process that is gone; only a request is worth starting another.
        if (!isRequest(message)) return new Response(null, { status: 202 });
        restored = true;
        await restoreSession(env, origin, grant ?? '', restore);
      } else if (thrown.code === 'route_stale' && !rerouted) {
        rerouted = true;
        ({ route, grant, restore } = unwrap(await sessionOf(env, session).reroute(session)));
        if (route.runtime === 'edge') throw moved(route.server);
      } else if (thrown.code === 'session_unknown' || thrown.code === 'route_stale') {
        throw new MoorageError('server_failed', 'The origin lost this session again while it was being restored.');
      } else throw thrown;
    }
  }
}

/** Brings a new process at the origin to where the session stands. Its answers are nobody's. */
async function restoreSession(env: Env, origin: string, grant: string, restore: Admission['restore']): Promise<void> {
  const initialize = initializeOf(restore, 'moorage');
  const answer = await postMessage(env, origin, grant, encode(initialize), true);
  await answer.body?.cancel();
  for (const request of restoringRequests(restore, 'moorage')) {
    const response = await postMessage(env, origin, grant, encode(request));
    await readBounded(response, MAX_MESSAGE_BYTES);
  }
}

const encode = (message: JsonRpcMessage) => new TextEncoder().encode(JSON.stringify(message));

/** A JSON answer is read whole: one that breaks off must not reach the client as half a message. */
export async function wholeAnswer(response: Response, carried: Awaiting, request: JsonRpcRequest): Promise<Response> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = await readBounded(response, MAX_MESSAGE_BYTES);
  } catch (thrown) {
    if (thrown instanceof MoorageError) {
      throw new MoorageError('server_failed', `The server's answer is larger than ${MAX_MESSAGE_BYTES} bytes.`);
    }
    throw await explain(carried, false);
  }
  if (carried.onAnswer) {
    const answer = messageOf({ parts: [new TextEncoder().encode('data:'), bytes], bytes: bytes.byteLength });
    if (!answer || !isResponse(answer) || answer.id !== request.id) {
      throw new MoorageError('server_failed', 'The server answered with something that is no response to the request.');
    }
    await carried.onAnswer(answer);
  }
  return new Response(bytes, { headers: { 'content-type': 'application/json' } });
}

/**
 * The origin's events as they come, completed with an error where the response cannot be had. `resumable` is given in the
 * era with sessions: the stream is then found again when the connection to the origin breaks.
 */
export function guard(
  body: ReadableStream<Uint8Array>,
  carried: Awaiting,
  request: JsonRpcRequest,
  resumable?: Carried,
): ReadableStream<Uint8Array> {
  return relay(body, {
    request: request.id,
    onAnswer: carried.onAnswer,
    reattach: resumable && ((at) => reattach(resumable, at)),
    giveUp: async (reason) => {
      const tooLarge = new MoorageError('server_failed', 'The server sent a message that is too large.');
      return failure(request.id, reason === 'too-large' ? tooLarge : await explain(carried, false));
    },
    endIdleAfterMs: resumable?.endIdleAfterMs,
  });
}

/** What can be said of a request whose exchange broke. `unsent`: it certainly did not arrive. */
export async function explain({ env, admission, message }: Awaiting, unsent: boolean): Promise<MoorageError> {
  const { origin } = admission.route as OriginRoute;
  const method = 'method' in message ? message.method : '';
  if (!unsent && !HARMLESS.test(method)) {
    return new MoorageError(
      'outcome_unknown',
      'The connection to the origin broke while the call was running. It may or may not have taken effect: check before you repeat it.',
    );
  }
  const { connected, lastSeen } = await env.ORIGIN.get(env.ORIGIN.idFromName(origin)).presence();
  const state = connected ? 'does not answer, though its agent is connected' : 'is away';
  const seen = lastSeen === null ? 'It was never seen' : `It was last seen ${lastSeen}`;
  return new MoorageError(
    'origin_away',
    `Origin "${origin}", which runs this server, ${state}. ${seen}. Start its agent, then try again.`,
    { origin, lastSeen },
  );
}

function moved(server: string): MoorageError {
  return new MoorageError('session_not_found', `Server "${server}" runs elsewhere now. Initialize a new session.`);
}
