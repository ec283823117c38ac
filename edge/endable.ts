/** Owns an event stream of a response that something of ours may end before it is over. */

/** Ends the stream: with `failure` it breaks, which a client can tell from an end. The second time it does nothing. */
export type End = (reason: string, failure?: 'failure') => void;

/**
 * The response, whose stream passes until `begin`'s `end` is called. What `begin` returns is called once, when the stream is
 * over, however it ended. To what runs behind the stream an end is a client that left. A response that is no event stream is
 * over soon: it passes as it is, and nothing begins.
 */
export function endable(response: Response, begin: (end: End) => () => void): Response {
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
  if (!isStream || !response.body) return response;
  const reader = response.body.getReader();
  let over = false;
  let leave: (() => void) | undefined;
  const finish = () => {
    if (over) return;
    over = true;
    leave?.();
  };
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        leave = begin((reason, failure) => {
          if (over) return;
          finish();
          if (failure) controller.error(new Error(reason));
          else controller.close();
          void reader.cancel(reason).catch(() => undefined);
        });
        // It may be over before it has begun.
        if (over) leave();
      },
      async pull(controller) {
        const part = await reader.read().catch((thrown: unknown) => {
          finish();
          throw thrown;
        });
        if (over) return;
        if (!part.done) return controller.enqueue(part.value);
        finish();
        controller.close();
      },
      async cancel(reason) {
        finish();
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, response);
}
