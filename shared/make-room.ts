/** Owns how a bounded row of messages takes one more. Pure. */

/** What a row may hold. */
export interface Room {
  readonly messages: number;
  readonly bytes: number;
}

/** A message in the row. */
export interface Kept {
  /** Order of arrival. */
  readonly n: number;
  readonly bytes: number;
  /** Whether it may give way: it says little that a later one does not say, or its reader probably has it. */
  readonly droppable: boolean;
}

/**
 * Which messages give way to `incoming`, the oldest first, and whether it is kept itself. `row` is in order of arrival.
 * What does not fit even so is not kept, and then nothing gives way to it.
 */
export function makeRoom(
  row: Iterable<Kept>,
  incoming: Pick<Kept, 'bytes'>,
  held: Room,
  room: Room,
): { readonly drop: readonly Kept[]; readonly keep: boolean } {
  let messages = held.messages + 1;
  let bytes = held.bytes + incoming.bytes;
  const fits = () => messages <= room.messages && bytes <= room.bytes;
  const drop: Kept[] = [];
  if (fits()) return { drop, keep: true };
  for (const message of row) {
    if (!message.droppable) continue;
    drop.push(message);
    messages--;
    bytes -= message.bytes;
    if (fits()) return { drop, keep: true };
  }
  return { drop: [], keep: false };
}
