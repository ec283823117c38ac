/** Owns the `audit` block of `moorage.jsonc`: what the edge writes down of its use, and for how long it keeps it. */
import { z } from 'zod';

export const auditSchema = z.strictObject({
  /** Of calls: nothing; who called what, when; or with arguments too, which may hold secrets. */
  payloads: z.enum(['none', 'metadata', 'full']).default('none'),
  /** Days that records are kept. */
  days: z.number().int().min(1).max(3650).default(90),
});

export type AuditConfig = z.infer<typeof auditSchema>;

export const DEFAULT_AUDIT: AuditConfig = { payloads: 'none', days: 90 };
