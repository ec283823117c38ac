/**
 * Owns that a stream does not outlive the credential that opened it: it ends when that expires, or is revoked.
 *
 * A stream that a token opened is joined to the object that knows the token once it has lived `WATCH_AFTER_MS` (most have ended by then); a
 * token that was revoked meanwhile ends it at that moment. To what runs behind the stream this is a client that left.
 */
import type { Credential } from '../../shared/principal.ts';
import type { Env } from '../env.ts';
import { watchGrant } from './oauth/object.ts';
import { watchToken } from './tokens/object.ts';

/** So late at most does a stream end whose token was revoked, in milliseconds. */
const WATCH_AFTER_MS = 2000;
/** Timers count to 2^31 ms at most. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Credentials that can be revoked, and who tells when that happens. */
const WATCHED: Partial<Record<Credential['kind'], (env: Env, id: string) => Promise<WebSocket | null>>> = {
  token: watchToken,
  oauth: watchGrant,
};

/** The response, whose stream ends with the credential. Other responses are over soon, and pass as they are. */
export function endWithCredential(env: Env, credential: Credential, response: Response): Response {
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
  const ends = credential.expiresAt !== undefined || credential.kind in WATCHED;
  if (!isStream || !ends || !response.body) return response;
  return new Response(endingStream(env, credential, response.body.getReader()), response);
}

function endingStream(
  env: Env,
  { kind, id = '', expiresAt }: Credential,
  reader: ReadableStreamDefaultReader<Uint8Array>,
): ReadableStream<Uint8Array> {
  const timers = new Set<ReturnType<typeof setTimeout>>();
  const watchFor = WATCHED[kind];
  let socket: WebSocket | null = null;
  let open = true;
  const leave = () => {
    open = false;
    for (const timer of timers) clearTimeout(timer);
    socket?.close(1000, 'the stream ended');
  };
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        const end = () => {
          if (!open) return;
          leave();
          controller.close();
          void reader.cancel('the credential ended').catch(() => undefined);
        };
        const watch = async () => {
          const watching = await watchFor?.(env, id).catch(() => null);
          if (!watching) return end();
          if (!open) return watching.close(1000, 'the stream ended');
          socket = watching;
          // Also when the object's connection is lost: a client comes back, and is asked for its token again.
          watching.addEventListener('close', end);
          watching.addEventListener('error', end);
        };
        if (expiresAt !== undefined) {
          const wait = () => {
            const left = expiresAt - Date.now();
            if (left <= 0) end();
            else timers.add(setTimeout(wait, Math.min(left, MAX_TIMER_MS)));
          };
          wait();
        }
        if (watchFor) timers.add(setTimeout(watch, WATCH_AFTER_MS));
      },
      async pull(controller) {
        const part = await reader.read();
        if (!open) return;
        if (!part.done) return controller.enqueue(part.value);
        leave();
        controller.close();
      },
      async cancel(reason) {
        leave();
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}
