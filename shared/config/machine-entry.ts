/** Owns entries of servers that run in a machine or as a plain process: their schema and its defaults. */
import { z } from 'zod';
import { clientOnly, sharing } from './common.ts';
import { egress } from './egress.ts';
import { health } from './health.ts';
import { image, isOciImage } from './image.ts';
import { isolation } from './isolation.ts';
import { limits } from './limits.ts';
import { output } from './output.ts';
import { secrets } from './secrets.ts';
import { discovery, sleep } from './sleep.ts';

const machineEntry = z.strictObject({
  /** MCP clients name the transport here; a command is always reached over its pipes. */
  type: z.literal('stdio').optional(),
  runtime: z.enum(['vm', 'process']).default('vm'),
  /** May be left out where a container image says what is started. */
  command: z.string().min(1).optional(),
  args: z.array(z.string()).default([]),
  env: z
    .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'this is not a name of an environment variable'), z.string())
    .default({}),
  /** A folder beside the configuration that goes into the machine's image, read-only base of the server's working directory. */
  files: z.string().min(1).optional(),
  image,
  /** Servers that name the same machine share one. */
  machine: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'use lower case letters, digits and "-"')
    .optional(),
  isolation: isolation.optional(),
  process: sharing,
  limits: limits.default({}),
  health: health.optional(),
  /** What it may connect to: nothing, without it. */
  egress: egress.optional(),
  /** Names of what it gets from the origin's store, each in a variable of its environment. */
  secrets: secrets.optional(),
  ...discovery,
  sleep: sleep.optional(),
  ...output,
  ...clientOnly,
});
export const machineServer = machineEntry
  .refine(({ command, image }) => command !== undefined || isOciImage(image), {
    path: ['command'],
    error: 'say how the server is started, or give a container image',
  })
  .refine(({ runtime, image }) => runtime === 'vm' || !isOciImage(image), {
    path: ['image'],
    error: 'a container image runs in a microVM: leave out "runtime"',
  })
  .superRefine(({ env, secrets = [] }, context) => {
    for (const [at, { env: name }] of secrets.entries()) {
      if (Object.hasOwn(env, name))
        context.addIssue({ code: 'custom', path: ['secrets', at], message: `"env" sets ${name} already` });
    }
  });

export type MachineServer = z.infer<typeof machineServer>;
