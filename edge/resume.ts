/** Owns what a GET of a session opens: a stream of the client's own, or the rest of one that broke (`Last-Event-ID`). */
import { parseEventId } from '../shared/event-stream.ts';
import { type Resuming, resumeAtOrigin } from './origin/resume.ts';
import { openStream } from './session/stream.ts';

/** The answer to a GET. An id that is none of ours counts as none. @throws MoorageError. */
export async function openOrResume(resuming: Resuming, lastEventId: string | null): Promise<Response> {
  const at = lastEventId === null ? undefined : parseEventId(lastEventId);
  if (at?.kind === 'origin') return await resumeAtOrigin(resuming, at);
  const { env, session, principal } = resuming;
  return await openStream(env, session, principal, at && lastEventId !== null ? lastEventId : undefined);
}
