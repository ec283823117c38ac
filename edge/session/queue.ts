/**
 * Owns what a session keeps for a client that holds no stream at the moment. Pure.
 *
 * Invariant: at most `MAX_QUEUED` messages and `MAX_QUEUED_BYTES` a session. The oldest notifications give way first: a
 * later one usually says the same, while a request that is lost leaves a server waiting.
 */
export const MAX_QUEUED = 100;
export const MAX_QUEUED_BYTES = 256 * 1024;

export interface Queued {
  /** Order of arrival. */
  readonly seq: number;
  readonly bytes: number;
  /** True for a notification. */
  readonly droppable: boolean;
}

/** Which queued messages give way to `incoming`, and whether it is kept itself. `queue` is in order of arrival. */
export function makeRoom(
  queue: readonly Queued[],
  incoming: Omit<Queued, 'seq'>,
): { readonly drop: readonly number[]; readonly keep: boolean } {
  let count = queue.length + 1;
  let bytes = queue.reduce((sum, message) => sum + message.bytes, incoming.bytes);
  const drop: number[] = [];
  for (const message of queue) {
    if (count <= MAX_QUEUED && bytes <= MAX_QUEUED_BYTES) break;
    if (!message.droppable) continue;
    drop.push(message.seq);
    count--;
    bytes -= message.bytes;
  }
  const fits = count <= MAX_QUEUED && bytes <= MAX_QUEUED_BYTES;
  // What does not fit even so is not kept, and then nothing needs to give way to it.
  return fits ? { drop, keep: true } : { drop: [], keep: false };
}
