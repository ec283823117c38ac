/**
 * Decides which sleeping machines have something that waits for their wake: those that were used last, as far as there is
 * memory that nobody needs. Pure.
 *
 * Invariants: never more than `most`; what waits fits into what is free; nobody has one whose last use is before that of
 * another who could have one and has not.
 */

/** A machine that sleeps on disk. */
export interface Sleeper {
  readonly key: string;
  /** When it was used last, in milliseconds. */
  readonly idleSince: number;
  /** Whether something waits for its wake now. */
  readonly waits: boolean;
  /** What that takes of the host's memory, or would take. */
  readonly memoryMiB: number;
}

export interface Standbys {
  /** Keys of machines that should have one and have not. */
  readonly start: readonly string[];
  /** Keys of machines that have one and should not. */
  readonly end: readonly string[];
}

export function standBy(sleepers: readonly Sleeper[], most: number, freeMiB: number): Standbys {
  const ranked = [...sleepers].sort((a, b) => b.idleSince - a.idleSince || (a.key < b.key ? -1 : 1));
  let free = freeMiB;
  let count = 0;
  for (const { memoryMiB } of ranked.slice(0, most)) {
    if (memoryMiB > free) break;
    free -= memoryMiB;
    count += 1;
  }
  return {
    start: ranked.slice(0, count).flatMap(({ key, waits }) => (waits ? [] : [key])),
    end: ranked.slice(count).flatMap(({ key, waits }) => (waits ? [key] : [])),
  };
}
