/** Owns how times are written on the command line. Pure. */
import { UsageError } from './usage.ts';

const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** `90s`, `30m`, `8h` or `7d` in milliseconds; undefined for anything else. */
export function durationOf(text: string): number | undefined {
  const [, count, unit] = /^([1-9]\d{0,5})([smhd])$/.exec(text) ?? [];
  return count === undefined ? undefined : Number(count) * UNITS[unit as keyof typeof UNITS];
}

/** What `--since` means, as Unix time in milliseconds: so long ago, or a date; without a text, ever. @throws UsageError. */
export function sinceOf(text: string | undefined, now: number): number {
  if (text === undefined) return 0;
  const ago = durationOf(text);
  const at = ago === undefined ? Date.parse(text) : now - ago;
  if (Number.isFinite(at)) return at;
  throw new UsageError('--since takes a time such as 15m, 12h or 7d, or a date.');
}
