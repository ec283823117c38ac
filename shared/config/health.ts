/** Owns `health` of a server: what becomes of a process that has stopped answering while calls wait for it. */
import { z } from 'zod';

/**
 * `report`: the owner's log and `moorage machines` say so. `restart`: its process is ended too, and its calls learn that
 * their outcome is unknown. A server that computes without a pause answers nothing either, so `report` is the default.
 */
export const health = z.enum(['report', 'restart'], {
  error: 'write "report" (say it in the log) or "restart" (end the process as well)',
});
export type Health = z.infer<typeof health>;
