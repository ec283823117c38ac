/**
 * Owns when the slot of a running call is given back: when its answer has ended, however it ends. A client that leaves ends its
 * call only since 2026-07-28; before, the call goes on, and its slot is kept until nobody renews it.
 */

/** What keeps a call's slot. */
export interface Slot {
  release(): void;
  /** Nobody renews it any more. */
  abandon(): void;
}

/** A response that holds a slot. `cancels`: its client ends the call by leaving. */
export function holding(response: Response, slot: Slot, cancels: boolean): Response {
  const { body, status, headers } = response;
  if (!body || !headers.get('content-type')?.startsWith('text/event-stream')) {
    slot.release();
    return response;
  }
  const reader = body.getReader();
  let left = false;
  const held = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        // A read that was waiting ends when its stream is cancelled: that is no end of the call.
        if (left) return;
        if (!done) return controller.enqueue(value);
        slot.release();
        controller.close();
      } catch (thrown) {
        if (left) return;
        slot.release();
        controller.error(thrown);
      }
    },
    async cancel(reason) {
      left = true;
      if (cancels) slot.release();
      else slot.abandon();
      await reader.cancel(reason);
    },
  });
  return new Response(held, { status, headers });
}
