/** Owns how a decision of the policy is asked for by people, at the command line and at the administration. */
import { z } from 'zod';
import { access } from './config/access.ts';
import type { Principal } from './principal.ts';

/** A caller as it is described, who need not exist. */
const described = z.strictObject({
  subject: z.string().max(1024),
  groups: z.array(z.string().max(1024)).max(1000),
  claims: z.record(z.string(), z.unknown()),
  /** Name of the bearer token with which it comes; null where it comes otherwise. */
  token: z.string().max(1024).nullable(),
});

const server = z.string().max(1024);
const name = z.string().max(65_536);
const use = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('server'), server }),
  z.strictObject({ kind: z.literal('other'), server }),
  z.strictObject({ kind: z.literal('tool'), server, name, arguments: z.unknown().optional() }),
  z.strictObject({ kind: z.literal('prompt'), server, name }),
  z.strictObject({ kind: z.literal('resource'), server, name }),
]);

/** `POST /admin/api/policy/explain`. */
export const explainRequest = z.strictObject({ who: described, use });
export type ExplainRequest = z.infer<typeof explainRequest>;

/** The decision, and the rules that it came from; null where there are none. */
export const explainAnswer = z.object({
  decision: z.object({
    allow: z.boolean(),
    trace: z.array(z.object({ rule: z.number(), effect: z.enum(['allow', 'deny']), reason: z.string() })),
  }),
  access: access.nullable(),
});
export type ExplainAnswer = z.infer<typeof explainAnswer>;

/** The caller that is described. */
export function describedPrincipal({ subject, groups, claims, token }: ExplainRequest['who']): Principal {
  return {
    subject,
    issuer: 'described',
    groups,
    scopes: [],
    claims,
    ...(token === null ? {} : { name: token }),
    credential: { kind: token === null ? 'jwt' : 'token' },
  };
}
