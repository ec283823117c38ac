/**
 * The stream between a terminal's owner and the agent (`/v1/shell` of the control socket). Pure.
 *
 * | way   | frame  | content                                               | meaning                                     |
 * |-------|--------|-------------------------------------------------------|---------------------------------------------|
 * | c->a  | text   | `Opening`                                             | always the first: what to run               |
 * | a->c  | text   | `{type: "started"}`                                   | it runs                                     |
 * | c->a  | binary | bytes                                                 | its standard input                          |
 * | c->a  | text   | `{type: "end"}`                                       | the input has ended                         |
 * | c->a  | text   | `{type: "resize", columns, rows}`                     | the terminal's window has another size      |
 * | c->a  | text   | `{type: "signal", signal}`                            | signal it                                   |
 * | a->c  | binary | u8 channel (1 output, 2 error), bytes                 | what it said                                |
 * | a->c  | text   | `{type: "exit", code, signal}`                        | it ended, and all it said was sent          |
 * | a->c  | text   | `{type: "failed", error}`, `error` as in `ErrorBody`  | it does not run                             |
 *
 * A client waits for `started` before it says more. The agent closes after `exit` and `failed`. A client that closes earlier hangs up.
 */
import { z } from 'zod';

export const SHELL_PATH = '/v1/shell';
/** Beside it: the bytes of a connection over SSH, as binary frames both ways. */
export const SSH_PATH = '/v1/ssh';

/** Characters of a window: what a u16 holds. */
const characters = z.number().int().min(0).max(0xffff);
const size = z.strictObject({ columns: characters, rows: characters });

export const opening = z.strictObject({
  server: z.string(),
  /** Absent: a login shell. */
  argv: z.array(z.string()).min(1).optional(),
  env: z.record(z.string(), z.string()),
  /** Absent: plain pipes. */
  terminal: size.optional(),
});
export type Opening = z.infer<typeof opening>;

export const SHELL_SIGNALS = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGKILL', 'SIGUSR1', 'SIGUSR2', 'SIGTERM'] as const;

export const fromClient = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('end') }),
  size.extend({ type: z.literal('resize') }),
  z.strictObject({ type: z.literal('signal'), signal: z.enum(SHELL_SIGNALS) }),
]);
export type FromClient = z.infer<typeof fromClient>;

export const fromAgent = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('started') }),
  z.strictObject({ type: z.literal('exit'), code: z.number().int().nullable(), signal: z.string().nullable() }),
  z.strictObject({ type: z.literal('failed'), error: z.unknown() }),
]);
export type FromAgent = z.infer<typeof fromAgent>;

export const OUTPUT = 1;
export const ERROR_OUTPUT = 2;
