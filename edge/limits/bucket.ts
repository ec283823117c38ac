/**
 * Owns one rate limit: the generic cell rate algorithm (ITU-T I.371), a token bucket whose whole state is one time. Pure.
 *
 * The state is when the bucket will be full again, in milliseconds; at or before now it is full. Invariants: in any stretch of
 * `t` ms no more than `burst + t / interval` are let through; who waits as long as it is told is let through, if alone.
 */
import type { Rate } from '../../shared/config/quotas.ts';

/** Time from one to the next at the sustained rate, in milliseconds. */
export const intervalOf = ({ amount, window }: Rate): number => (window * 1000) / amount;

/**
 * The state as it counts now: no later than that of an empty bucket. What refuses keeps it, so that a clock that was set back
 * costs no more than an empty bucket does.
 */
export const settled = (fullAt: number, rate: Rate, now: number): number =>
  Math.min(Math.max(fullAt, now), now + intervalOf(rate) * rate.burst);

/** How long until one more is let through, in whole milliseconds; 0 for now. */
export function waitOf(fullAt: number, rate: Rate, now: number): number {
  const excess = settled(fullAt, rate, now) - now - intervalOf(rate) * (rate.burst - 1);
  // Less than a thousandth is what adding fractions leaves behind.
  return excess <= 0.001 ? 0 : Math.ceil(excess);
}

/** The state after one more. */
export const afterOne = (fullAt: number, rate: Rate, now: number): number =>
  settled(fullAt, rate, now) + intervalOf(rate);

/** How many more would be let through at once. */
export function remainingOf(fullAt: number, rate: Rate, now: number): number {
  const used = settled(fullAt, rate, now) - now;
  return Math.max(0, Math.floor(rate.burst - used / intervalOf(rate) + 1e-6));
}
