/**
 * Decides which machines may be awake: all of them together have a budget of memory. Pure.
 *
 * A machine that is awake (`Resident`) keeps its memory until it sleeps on disk or is stopped. One that is wanted (`Claim`)
 * takes its own when there is room, first come, first served: a small claim never overtakes a large one, which would
 * otherwise wait for ever. Where there is none, the residents that nobody has used for the longest time yield, as many
 * as are needed and none in vain: when all that could yield would not make room, nobody is disturbed.
 *
 * Invariants: what is admitted fits into what is free now; a machine larger than the whole budget is admitted alone.
 */

/** A machine that calls wait for. */
export interface Claim {
  readonly key: string;
  readonly memoryMiB: number;
}

/** A machine that has memory. */
export interface Resident {
  readonly key: string;
  readonly memoryMiB: number;
  /** Since when nobody has used it, in milliseconds; undefined: it must stay. */
  readonly idleSince: number | undefined;
  /** It is on its way to the disk. */
  readonly leaving: boolean;
}

export interface Verdict {
  /** Keys of claims, in their order. */
  readonly admit: readonly string[];
  /** Keys of residents that are to give up their memory, the longest idle first. */
  readonly yield: readonly string[];
}

export function place(claims: readonly Claim[], residents: readonly Resident[], budgetMiB: number): Verdict {
  const sizeOf = ({ memoryMiB }: Claim | Resident): number => Math.min(memoryMiB, budgetMiB);
  const idle = residents
    .filter((resident) => resident.idleSince !== undefined && !resident.leaving)
    .sort((a, b) => (a.idleSince ?? 0) - (b.idleSince ?? 0));
  let free = budgetMiB;
  /** What will be free when everybody has left who was told to. */
  let promised = budgetMiB;
  for (const resident of residents) {
    free -= sizeOf(resident);
    if (!resident.leaving) promised -= sizeOf(resident);
  }
  const admit: string[] = [];
  const yields: string[] = [];
  let isBlocked = false;
  for (const claim of claims) {
    const size = sizeOf(claim);
    if (!isBlocked && size <= free) {
      admit.push(claim.key);
      free -= size;
      promised -= size;
      continue;
    }
    isBlocked = true;
    const victims = enough(idle, size - promised, sizeOf);
    if (victims === undefined) break;
    for (const victim of victims) {
      yields.push(victim.key);
      promised += sizeOf(victim);
    }
    idle.splice(0, victims.length);
    promised -= size;
  }
  return { admit, yield: yields };
}

/** The first residents that have `missing` together; undefined when all of them have less. */
function enough(
  idle: readonly Resident[],
  missing: number,
  sizeOf: (resident: Resident) => number,
): readonly Resident[] | undefined {
  let found = 0;
  let count = 0;
  while (found < missing) {
    const next = idle[count];
    if (next === undefined) return undefined;
    found += sizeOf(next);
    count += 1;
  }
  return idle.slice(0, count);
}
