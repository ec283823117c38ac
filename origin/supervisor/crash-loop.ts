/**
 * Decides when a server or a machine that keeps dying may be started again. Pure: the time is passed in, in milliseconds.
 *
 * A crash is an end that nobody asked for, soon after the start and before what ended was of any use; a server's start that
 * fails is one too. A few are nothing: a call that kills its process is repeated with a new one. From then on each costs a
 * pause, twice as long as the one before. What lives or is of use, or ten minutes in which nothing is started, end it.
 */

/** How something ended that nobody told to. */
export interface End {
  readonly livedMs: number;
  readonly wasOfUse: boolean;
  /** "exited with code 1". */
  readonly how: string;
}

export interface Crashes {
  /** In a row. */
  readonly count: number;
  /** Of the last one. */
  readonly at: number;
  /** When the next start may be. */
  readonly until: number;
  /** How the last one ended: "exited with code 1". */
  readonly how: string;
}

/** What has lived for so long was sound. */
export const SOUND_MS = 10_000;
/** Crashes in a row that cost no pause. */
const FREE = 5;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;
const FORGOTTEN_MS = 600_000;

/** What is known after something has ended by itself; undefined: nothing to worry about. */
export function crashed(
  before: Crashes | undefined,
  { livedMs, wasOfUse, how }: End,
  now: number,
): Crashes | undefined {
  if (livedMs >= SOUND_MS || wasOfUse) return undefined;
  const count = before !== undefined && now - before.at < FORGOTTEN_MS ? before.count + 1 : 1;
  const pause = count <= FREE ? 0 : Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(30, count - FREE - 1));
  return { count, at: now, until: now + pause, how };
}

/** Whether it counts as a loop: callers and the owner are told. */
export const isLoop = (crashes: Crashes | undefined): crashes is Crashes =>
  crashes !== undefined && crashes.count > FREE;

/** How long the next start must wait. */
export const waitOf = (crashes: Crashes | undefined, now: number): number => Math.max(0, (crashes?.until ?? 0) - now);

/** A loop as its owner is told of it, without its full stop. */
export function tellLoop(crashes: Crashes, now: number): string {
  const pause = Math.ceil(waitOf(crashes, now) / 1000);
  const next = pause > 0 ? `in ${pause} s at the earliest` : 'at the next call';
  return `${crashes.count} crashes in a row, the last one ${crashes.how}; next start ${next}`;
}
