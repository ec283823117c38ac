/**
 * Owns how a call's stream is found again at its origin, for a client that came back or for a connection that broke.
 *
 * An origin that is away for a moment (its agent starts anew, its tunnel reconnects) is waited for, so that the client's
 * few attempts are not used up. Whoever asks is admitted by the session first: the grant binds the stream to it.
 */
import { MoorageError } from '../../shared/errors.ts';
import { type EventId, formatEventId, primingText } from '../../shared/event-stream.ts';
import { takesPriming } from '../../shared/revision.ts';
import type { Env } from '../env.ts';
import { unwrap } from '../outcome.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { type Admission, sessionOf } from '../session/object.ts';
import { nothingFollows } from '../session/refusals.ts';
import { Broken, getStream } from './client.ts';
import { relay } from './relay.ts';

/** An origin that is away is waited for this long, in milliseconds, asked again after each of these pauses. */
const HOLD_MS = 20_000;
const PAUSES_MS = [100, 250, 500, 1_000] as const;

/** Who resumes. */
export interface Resuming {
  readonly env: Env;
  readonly session: string;
  readonly principal: string;
}

/** `gone`: there is no such stream, or nothing follows on it. `away`: its origin did not answer in time. */
type Found = ReadableStream<Uint8Array> | 'gone' | 'away';

/** Finds a stream after an event. @throws MoorageError when the session does not admit it. */
async function find(resuming: Resuming, at: EventId): Promise<Found> {
  const until = Date.now() + HOLD_MS;
  for (let attempt = 0; ; attempt++) {
    const admission = await admit(resuming);
    if (admission.route.runtime === 'edge') return 'gone';
    try {
      const { origin } = admission.route;
      const response = await getStream(resuming.env, origin, admission.grant ?? '', at, admission.revision);
      return response.status === 200 && response.body ? response.body : 'gone';
    } catch (thrown) {
      // What the origin refuses it will refuse again: the stream is not there, or the session's server is not.
      if (thrown instanceof MoorageError) return 'gone';
      if (!(thrown instanceof Broken)) throw thrown;
    }
    if (Date.now() >= until) return 'away';
    await new Promise((resolve) => setTimeout(resolve, PAUSES_MS[Math.min(attempt, PAUSES_MS.length - 1)]));
  }
}

async function admit({ env, session, principal }: Resuming): Promise<Admission> {
  return unwrap(await sessionOf(env, session).admitResume(session, principal));
}

/** For a relay: the stream after an event, or undefined. */
export async function reattach(resuming: Resuming, at: EventId): Promise<ReadableStream<Uint8Array> | undefined> {
  const found = await find(resuming, at).catch((thrown: unknown) => {
    if (thrown instanceof MoorageError) return 'gone' as const;
    throw thrown;
  });
  return typeof found === 'string' ? undefined : found;
}

/**
 * The answer to a client that came back for the rest of a call. @throws MoorageError `method_not_allowed` when nothing
 * follows: the refusal that clients take without complaint. Where the origin stays away a client that knows how is asked
 * to come again, as often as it likes: its own timeout decides.
 */
export async function resumeAtOrigin(resuming: Resuming, at: EventId): Promise<Response> {
  const { revision } = await admit(resuming);
  const found = await find(resuming, at);
  if (found === 'gone') {
    throw nothingFollows();
  }
  if (found === 'away') {
    if (takesPriming(revision)) return new Response(primingText(formatEventId(at)), { headers: STREAM_HEADERS });
    throw new MoorageError('origin_away', 'The origin that runs this call does not answer. Try again in a moment.');
  }
  const body = relay(found, { reattach: (next) => reattach(resuming, next), giveUp: async () => undefined });
  return new Response(body, { headers: STREAM_HEADERS });
}
