/** Owns what entries of servers of several runtimes have in common. */
import { z } from 'zod';

/** Members of other programs' `mcpServers` entries that say nothing to a router. */
export const CLIENT_ONLY = [
  'disabled',
  'autoApprove',
  'alwaysAllow',
  'timeout',
  'description',
  'name',
  'icon',
  'gallery',
  'trust',
] as const;
export const clientOnly = Object.fromEntries(CLIENT_ONLY.map((key) => [key, z.unknown().optional()])) as Record<
  (typeof CLIENT_ONLY)[number],
  z.ZodOptional<z.ZodUnknown>
>;

/** Which sessions share a process: see docs/servers.md. */
export const sharing = z.enum(['auto', 'session', 'shared']).default('auto');
