/**
 * Owns when an answer that takes its time begins, and how it is seen that nobody waits for it any more.
 *
 * After `QUICK_MS` an event stream is opened in the answer's place, so that the client and every proxy see that the
 * request lives. A bare workerd notices that a client has gone only when it writes: a comment in every silence of `beatMs`
 * is what makes a disconnect the cancellation that it is in this era (2026-07-28, "Cancellation").
 *
 * Invariant: streams that pass here hand on whole events in each chunk, so a comment never falls into one.
 */
import { toMoorageError } from '../../shared/errors.ts';
import { failure, type RequestId } from '../../shared/jsonrpc.ts';
import { KEEP_ALIVE_LINE } from '../../shared/origin-api.ts';
import { STREAM_HEADERS } from '../respond.ts';
import { eventOf } from '../sse.ts';

/** An answer that is there within this time, in milliseconds, keeps its own form and status. */
const QUICK_MS = 1000;

export interface Hold {
  /** The request's. */
  readonly id: RequestId;
  /** How long a stream may be silent, in milliseconds. */
  readonly beatMs: number;
  /** Aborted when the client is gone. */
  readonly leaving: AbortController;
}

/** `answer` as it is when it comes soon and whole, else an event stream that ends with it. @throws what `answer` does. */
export async function heldOpen(answer: Promise<Response>, hold: Hold): Promise<Response> {
  let timer: ReturnType<typeof setTimeout> | null = null;
  const slow = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), QUICK_MS);
  });
  const first = await Promise.race([answer, slow]).finally(() => clearTimeout(timer));
  if (first && !isStream(first)) return first;
  return new Response(streamOf(answer, hold), { headers: STREAM_HEADERS });
}

const isStream = ({ headers }: Response): boolean =>
  headers.get('content-type')?.startsWith('text/event-stream') ?? false;

function streamOf(answer: Promise<Response>, { id, beatMs, leaving }: Hold): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let timer: ReturnType<typeof setInterval> | null = null;
  let spoke = false;
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  return new ReadableStream<Uint8Array>({
    start(controller) {
      timer = setInterval(() => {
        const silent = !spoke && (controller.desiredSize ?? 0) > 0;
        spoke = false;
        if (silent) controller.enqueue(encoder.encode(KEEP_ALIVE_LINE));
      }, beatMs);
      controller.enqueue(encoder.encode(': open\n\n'));
    },
    async pull(controller) {
      const end = (last?: Uint8Array) => {
        clearInterval(timer);
        if (leaving.signal.aborted) return;
        if (last) controller.enqueue(last);
        controller.close();
      };
      try {
        if (!reader) {
          const response = await answer;
          if (!isStream(response)) return end(eventOf(await response.text()));
          reader = response.body?.getReader();
        }
        const part = await reader?.read();
        if (!part || part.done) return end();
        spoke = true;
        if (!leaving.signal.aborted) controller.enqueue(part.value);
      } catch (thrown) {
        end(eventOf(failure(id, toMoorageError(thrown))));
      }
    },
    async cancel(reason) {
      clearInterval(timer);
      leaving.abort();
      await reader?.cancel(reason);
    },
  });
}
