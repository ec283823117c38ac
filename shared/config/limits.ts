/**
 * Owns what a machine may use, as the configuration says it, and what all machines of an origin may use together.
 * Sizes are powers of 1024.
 */
import { z } from 'zod';

/** Sizes such as `512M` or `2G`, as MiB. */
export const size = z
  .string()
  .regex(/^[1-9][0-9]{0,6}[MG]$/, 'write a size such as "512M" or "2G"')
  .transform((text) => Number(text.slice(0, -1)) * (text.endsWith('G') ? 1024 : 1));

const UNITS = { K: 1024, M: 1024 ** 2, G: 1024 ** 3 } as const;

/** Rates such as `512K/s` or `10M/s`, as bytes a second. */
export const rate = z
  .string()
  .regex(/^[1-9][0-9]{0,5}[KMG]\/s$/, 'write a rate such as "512K/s" or "10M/s" (bytes a second)')
  .transform((text) => Number(text.slice(0, -3)) * UNITS[text.at(-3) as keyof typeof UNITS]);

/** Of a machine: servers that share one agree. */
export const limits = z.strictObject({
  memory: size.refine((mib) => mib >= 128, 'a machine needs at least "128M"').optional(),
  cpus: z.number().int().min(1).max(64).optional(),
  disk: size.refine((mib) => mib >= 64, 'a machine needs a disk of at least "64M"').optional(),
  /** Processes and threads of all servers together. */
  pids: z.number().int().min(64, 'a server needs a dozen threads: allow at least 64').max(32_768).optional(),
  /** What it sends and receives, each. */
  network: rate.optional(),
});

export type Limits = z.infer<typeof limits>;

export const LIMIT_NAMES = ['memory', 'cpus', 'disk', 'pids', 'network'] as const satisfies readonly (keyof Limits)[];

/** Memory of all machines that are awake at the same time, in MiB. */
export const memoryBudget = size.refine((mib) => mib >= 128, 'a machine needs at least "128M"');
