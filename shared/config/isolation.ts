/** Owns `isolation` of a server: what gets a machine of its own. */
import { z } from 'zod';

/**
 * `server`: all callers share the server's machine. `principal`: every principal has one, with a disk that stays.
 * `session`: every session has one, which ends with it, disk and all.
 */
export const isolation = z.enum(['server', 'principal', 'session'], {
  error: 'write "server" (one machine for all), "principal" (one for each user) or "session" (one for each session)',
});
export type Isolation = z.infer<typeof isolation>;
