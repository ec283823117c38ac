/** Owns durations, and what they decide: when an idle machine sleeps, how old stored copies of lists may be. */
import { z } from 'zod';

/** Durations such as `90s`, `30m`, `24h` or `7d`, as seconds. */
const duration = z
  .string()
  .regex(/^[1-9][0-9]{0,5}[smhd]$/, 'write a duration such as "30m" or "24h"')
  .transform(
    (text) => Number(text.slice(0, -1)) * { s: 1, m: 60, h: 3600, d: 86_400 }[text.at(-1) as 's' | 'm' | 'h' | 'd'],
  );

/** Of servers at an origin. */
export const discovery = {
  /** Whether initialize and lists are answered from stored copies, without waking the server. */
  discovery: z.enum(['cached', 'live']).optional(),
  /** Copies older than this are fetched anew. */
  discoveryMaxAge: duration.optional(),
};

/** A duration in milliseconds; `never` is `Infinity`. */
const idleTime = z.union([
  duration.transform((seconds) => seconds * 1_000),
  z.literal('never').transform(() => Number.POSITIVE_INFINITY),
]);

/** When an idle machine sleeps, counted from its last use: see docs/servers.md. */
export const sleep = z.union(
  [
    z.literal('always-on'),
    z.strictObject({
      pauseAfter: idleTime.optional(),
      hibernateAfter: idleTime.optional(),
      stopAfter: idleTime.optional(),
    }),
  ],
  { error: (issue) => sleepFault(issue.input) },
);

/** A union names none of its members' faults: those of the object are what its writer wants to know. */
function sleepFault(input: unknown): string {
  if (typeof input !== 'object' || input === null) return 'write "always-on" or { "pauseAfter": "10s", … }';
  for (const [name, value] of Object.entries(input)) {
    if (!idleTime.safeParse(value).success) return `${name}: write a duration such as "10s", "5m" or "7d", or "never"`;
  }
  return 'write "always-on" or { "pauseAfter": "10s", … }';
}
