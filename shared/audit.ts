/**
 * Owns the records of what was done at an edge and by whom, and the chain that shows when one was changed or taken away: the
 * hash of a record covers the hash before it.
 *
 * Invariant: a record holds no credential, no argument and no result, but for kind `call` where the owner asked for them.
 */
import { z } from 'zod';

export const AUDIT_KINDS = ['denied', 'login', 'token', 'policy', 'enrolment', 'admin', 'call'] as const;
export type AuditKind = (typeof AUDIT_KINDS)[number];

/** What is written down. Texts of callers are cut; values are those of JSON. */
export interface AuditEvent {
  readonly kind: AuditKind;
  /** What was done, or with which code it was denied. */
  readonly action: string;
  /** Who, where that is known. */
  readonly subject?: string | undefined;
  /** By which credential: its kind and id. */
  readonly credential?: string | undefined;
  readonly server?: string | undefined;
  /** From where, where that is known. */
  readonly address?: string | undefined;
  readonly detail?: Readonly<Record<string, unknown>> | undefined;
}

export const auditText = z.looseObject({
  at: z.number(),
  kind: z.enum(AUDIT_KINDS),
  action: z.string(),
  subject: z.string().optional(),
  credential: z.string().optional(),
  server: z.string().optional(),
  address: z.string().optional(),
  detail: z.record(z.string(), z.unknown()).optional(),
  /** As many as this one came since the record before of the same. */
  count: z.number().optional(),
});
export type AuditRecord = z.infer<typeof auditText>;

/** A record as it is kept: its text is what its hash covers. */
export const auditEntry = z.object({ n: z.number(), text: z.string(), hash: z.string() });
export type AuditEntry = z.infer<typeof auditEntry>;

/** `GET /admin/api/audit`. `before`: the hash that the first entry's covers. `next`: where the next page begins, or null. */
export const auditPage = z.object({ before: z.string(), entries: z.array(auditEntry), next: z.number().nullable() });
export type AuditPage = z.infer<typeof auditPage>;

/** The hash of a record that follows one with hash `before` ('' for the first). */
export async function chained(before: string, text: string): Promise<string> {
  const bytes = new TextEncoder().encode(`${before}\n${text}`);
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The number of the first entry that does not follow from those before it; null when all do. */
export async function brokenAt({ before, entries }: Pick<AuditPage, 'before' | 'entries'>): Promise<number | null> {
  let hash = before;
  for (const entry of entries) {
    if ((await chained(hash, entry.text)) !== entry.hash) return entry.n;
    hash = entry.hash;
  }
  return null;
}
