/**
 * Owns the carrying of one message of an admitted session to its origin, and what it takes to get it there: a session
 * that was lost is restored, a server that moved is found again.
 *
 * Invariant: a disconnected client cancels nothing (before 2026-07-28).
 */
import { MoorageError } from '../shared/errors.ts';
import type { EventId } from '../shared/event-stream.ts';
import { isRequest, type JsonRpcMessage } from '../shared/jsonrpc.ts';
import { PREFER_HEADER, REVISION_HEADER, WAKE_HEADER } from '../shared/origin-api.ts';
import { type Attempt, answerTo, attemptOf, unanswered } from './attempt.ts';
import { directoryOf } from './directory/object.ts';
import type { OriginRoute } from './directory/route.ts';
import { INITIALIZE } from './discovery/question.ts';
import { answerIn } from './discovery/reconcile.ts';
import { toldBy, type View, variantOf } from './discovery/view.ts';
import type { Env } from './env.ts';
import { explain } from './loss.ts';
import { Broken, postMessage } from './origin/client.ts';
import { reattach } from './origin/resume.ts';
import { unwrap } from './outcome.ts';
import { initializeOf, restoringRequests } from './session/memory.ts';
import { type Admission, sessionOf } from './session/object.ts';

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
  /** The stored answer, as it stands where no process is there to be asked: it is not worth waking one. */
  readonly copy?: Uint8Array;
  /** Called with the response to the request before the client sees it. `own`: its lists are the process's own affair. */
  readonly onAnswer?: (answer: JsonRpcMessage, own: boolean) => Promise<void>;
}

/** Carries a message. @throws MoorageError. */
export async function dispatch(carried: Carried): Promise<Response> {
  const { env, admission, message, onAnswer, preferStream } = carried;
  const lost = { env, route: admission.route as OriginRoute, view: () => viewOf(carried) };
  if (isRequest(message)) {
    const stream = {
      reattach: (at: EventId) => reattach(carried, at),
      endIdleAfterMs: carried.endIdleAfterMs,
    };
    return await answerTo({ ...lost, message, once: () => requestOnce(carried), stream, onAnswer, preferStream });
  }
  try {
    await (await send(carried)).body?.cancel();
  } catch (thrown) {
    if (!(thrown instanceof Broken)) throw thrown;
    throw await explain({ ...lost, message }, thrown.loss, false);
  }
  return new Response(null, { status: 202 });
}

/** Whose view of a server a session's client has. */
export async function viewOf({ admission, principal }: Pick<Carried, 'admission' | 'principal'>): Promise<View> {
  const variant = await variantOf(admission.restore.initialize);
  return { server: admission.route.server, principal, variant };
}

async function requestOnce(carried: Carried): Promise<Attempt> {
  const { copy } = carried;
  let response: Response;
  try {
    response = await send(carried);
  } catch (thrown) {
    const gone = thrown instanceof MoorageError && thrown.code === 'session_unknown';
    if (copy && (gone || thrown instanceof Broken)) return { type: 'whole', bytes: copy, own: true };
    if (thrown instanceof Broken) return { type: 'lost', loss: thrown.loss };
    throw thrown;
  }
  if (response.status === 200) return await attemptOf(response);
  await response.body?.cancel();
  throw unanswered();
}

/** One message to the origin; once again after the session was restored there, or after it was found elsewhere. */
async function send(carried: Carried): Promise<Response> {
  const { env, session, message, bytes, copy, preferStream } = carried;
  let { admission } = carried;
  const headers = {
    ...(admission.revision === null ? {} : { [REVISION_HEADER]: admission.revision }),
    ...(preferStream ? { [PREFER_HEADER]: 'stream' } : {}),
    ...(copy ? { [WAKE_HEADER]: 'no' } : {}),
  };
  let restored = false;
  let rerouted = false;
  for (;;) {
    const { origin } = admission.route as OriginRoute;
    try {
      return await postMessage(env, origin, admission.grant ?? '', bytes, false, { headers });
    } catch (thrown) {
      if (!(thrown instanceof MoorageError)) throw thrown;
      if (thrown.code === 'session_unknown' && !restored) {
        // There is nothing to tell a process that is gone; only a request is worth starting another.
        if (!isRequest(message)) return new Response(null, { status: 202 });
        if (copy) throw thrown;
        restored = true;
        await restoreSession({ ...carried, admission });
      } else if (thrown.code === 'route_stale' && !rerouted) {
        rerouted = true;
        admission = unwrap(await sessionOf(env, session).reroute(session));
        if (admission.route.runtime === 'edge') throw moved(admission.route.server);
      } else if (thrown.code === 'session_unknown' || thrown.code === 'route_stale') {
        throw new MoorageError('server_failed', 'The origin lost this session again while it was being restored.');
      } else throw thrown;
    }
  }
}

/**
 * Brings a new process at the origin to where the session stands. What it answers was told to the client before; a server
 * that introduces itself in another way now is the Session object's to judge, and its copies are worth nothing.
 */
async function restoreSession(carried: Carried): Promise<void> {
  const { env, session, admission } = carried;
  const { route, restore, told: before } = admission;
  const initialize = initializeOf(restore, 'moorage');
  const replay = JSON.stringify([initialize, ...restoringRequests(restore, 'moorage')]);
  const { origin } = route as OriginRoute;
  const response = await postMessage(env, origin, admission.grant ?? '', new TextEncoder().encode(replay), true);
  const answer = await answerIn(response, String(initialize.id));
  const told = answer && 'result' in answer ? await toldBy(answer.result) : null;
  if (!answer || !('result' in answer) || !told) {
    throw new MoorageError('server_failed', `The server "${route.server}" could not be initialized again.`);
  }
  if (before?.digest !== told.digest) {
    // Before the client hears of it: what it asks next must not be answered from what was true before.
    await directoryOf(env).remember(
      await viewOf(carried),
      INITIALIZE,
      { text: JSON.stringify(answer.result), refused: false },
      null,
    );
  }
  unwrap(await sessionOf(env, session).restored(session, told));
}

function moved(server: string): MoorageError {
  return new MoorageError('session_not_found', `Server "${server}" runs elsewhere now. Initialize a new session.`);
}
