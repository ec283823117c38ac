/**
 * Owns that an exchange with an origin does not outlive the trust in it: where an enrolled origin is revoked, what it still
 * answers is heard no more.
 */
import type { Env } from '../env.ts';
import { isBound, originOf } from './known.ts';

/** How often an exchange that runs looks whether its origin is trusted, in milliseconds. Mostly it looks at what is remembered. */
const LOOK_EVERY_MS = 1_000;

/** Calls `end` once the origin is trusted no more. @returns what stops looking. */
export function whenRevoked(env: Env, origin: string, end: () => void): () => void {
  if (isBound(env, origin)) return () => undefined;
  const timer = setInterval(async () => {
    // A Directory that cannot be asked says nothing against the origin.
    if (await originOf(env, origin).catch(() => true)) return;
    clearInterval(timer);
    end();
  }, LOOK_EVERY_MS);
  return () => clearInterval(timer);
}

/** An origin's response, whose stream breaks when the origin is revoked. Other responses are over soon, and pass as they are. */
export function whileTrusted(env: Env, origin: string, response: Response): Response {
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
  if (!isStream || !response.body || isBound(env, origin)) return response;
  const reader = response.body.getReader();
  let leave = () => {};
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        leave = whenRevoked(env, origin, () => {
          controller.error(new Error('the origin was revoked'));
          void reader.cancel('the origin was revoked').catch(() => undefined);
        });
      },
      async pull(controller) {
        const part = await reader.read().catch((thrown: unknown) => {
          leave();
          throw thrown;
        });
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
  return new Response(body, response);
}
