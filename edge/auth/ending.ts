/**
 * Owns that a stream does not outlive the credential that opened it: it ends when that expires, or is revoked.
 *
 * A stream is joined to the object that knows its credential once it has lived `WATCH_AFTER_MS` (most have ended by then); a
 * credential that was revoked meanwhile ends it at that moment.
 */
import { endable } from '../endable.ts';

/** So late at most does a stream end whose credential was revoked, in milliseconds. */
const WATCH_AFTER_MS = 2000;
/** Timers count to 2^31 ms at most. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Who tells of a credential's end. */
export interface Watch {
  /** Closes when the credential is revoked. */
  readonly socket: WebSocket;
  /** Unix time in milliseconds at which to ask again whether the credential lives; null where it is not needed. */
  readonly until: number | null;
}

/** When a stream must end. */
export interface Ending {
  /** Unix time in milliseconds. */
  readonly expiresAt?: number | undefined;
  /** Watches a credential that can be revoked. Null: it lives no more, or nobody could tell. */
  readonly watch?: (() => Promise<Watch | null>) | undefined;
}

/** The response, whose stream ends as `ending` says. */
export function endingWith(ending: Ending, response: Response): Response {
  if (ending.expiresAt === undefined && ending.watch === undefined) return response;
  return endable(response, (end) => watchUntil(ending, () => end('the credential ended')));
}

/** Calls `end` when the credential has ended. @returns what stops watching. */
function watchUntil({ expiresAt, watch }: Ending, end: () => void): () => void {
  const timers = new Set<ReturnType<typeof setTimeout>>();
  let socket: WebSocket | null = null;
  let open = true;
  const at = (time: number, act: () => void) => {
    const left = time - Date.now();
    if (left <= 0) return act();
    const timer = setTimeout(
      () => {
        timers.delete(timer);
        at(time, act);
      },
      Math.min(left, MAX_TIMER_MS),
    );
    timers.add(timer);
  };
  const join = async (asking: () => Promise<Watch | null>) => {
    const watching = await asking().catch(() => null);
    if (!open) return watching?.socket.close(1000, 'the stream ended');
    if (!watching) return end();
    const former = socket;
    socket = watching.socket;
    former?.close(1000, 'watched anew');
    // Also when the object's connection is lost: a client comes back, and is asked for its credential again.
    const closed = () => {
      if (socket === watching.socket) end();
    };
    socket.addEventListener('close', closed);
    socket.addEventListener('error', closed);
    if (watching.until !== null) {
      const again = Math.max(watching.until, Date.now() + WATCH_AFTER_MS);
      at(again, () => void join(asking));
    }
  };
  if (watch) at(Date.now() + WATCH_AFTER_MS, () => void join(watch));
  if (expiresAt !== undefined) at(expiresAt, end);
  return () => {
    open = false;
    for (const timer of timers) clearTimeout(timer);
    socket?.close(1000, 'the stream ended');
  };
}
