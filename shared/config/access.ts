/**
 * Owns `access` of the configuration: who may use what. `shared/policy.ts` decides by it; docs/policy.md explains it.
 */
import { z } from 'zod';

const WHO = /^(?:\*|(?:group|sub|token):[^\n]+|claim:[^=\n]+=[^\n]*)$/;
const who = z
  .string()
  .max(512)
  .regex(WHO, 'write "*", "group:eng", "sub:<subject>", "token:<name>" or "claim:<name>=<value>"');

/** Globs over names, `!` takes away. Without one that lets something in, a list would let nothing in. */
const names = z
  .array(z.string().min(1).max(256))
  .min(1)
  .max(500)
  .refine((globs) => globs.some((glob) => !glob.startsWith('!')), 'begin with what is meant, such as "*"');

const scalar = z.union([z.string().max(4096), z.number(), z.boolean(), z.null()]);
/** What an argument must be. All that is written must hold. */
const constraint = z
  .strictObject({
    equals: scalar.optional(),
    oneOf: z.array(scalar).min(1).max(500).optional(),
    /** Globs over a text. */
    glob: z
      .union([
        z
          .string()
          .min(1)
          .max(1024)
          .transform((glob) => [glob]),
        names,
      ])
      .optional(),
    /** Of a number. */
    max: z.number().optional(),
    min: z.number().optional(),
    /** It may be left out. */
    optional: z.boolean().optional(),
  })
  .refine(
    ({ equals, oneOf, glob, max, min }) => [equals, oneOf, glob, max, min].some((given) => given !== undefined),
    'say what it must be: "equals", "oneOf", "glob", "max" or "min"',
  );

const rule = z
  .strictObject({
    who: z.union([who.transform((one) => [one]), z.array(who).min(1).max(500)], {
      error: 'write "*", "group:eng", "sub:<subject>", "token:<name>" or "claim:<name>=<value>", or a list of these',
    }),
    servers: names.default(['*']),
    tools: names.optional(),
    prompts: names.optional(),
    resources: names.optional(),
    effect: z.enum(['allow', 'deny']).default('allow'),
    /** Of the tools that the rule allows, by dotted path or JSON pointer. */
    arguments: z.record(z.string().min(1).max(256), constraint).optional(),
  })
  .refine((given) => given.arguments === undefined || given.effect === 'allow', {
    path: ['arguments'],
    error: 'arguments limit what is allowed: write them on a rule that allows, and take the tool out of wider rules',
  })
  .refine((given) => given.arguments === undefined || (given.tools && !given.prompts && !given.resources), {
    path: ['arguments'],
    error: 'name the "tools" whose arguments these are, and neither prompts nor resources in the same rule',
  });

export const access = z.array(rule).max(1000);

export type Constraint = z.infer<typeof constraint>;
export type AccessRule = z.infer<typeof rule>;
export type Access = readonly AccessRule[];

/** Warnings of names that are no server's: of a rule that denies, a misspelt one would deny nothing. */
export function unknownServers(rules: Access, servers: ReadonlySet<string>): string[] {
  return rules.flatMap((given, index) =>
    given.servers
      .map((glob) => glob.replace(/^!/, ''))
      .filter((name) => !name.includes('*') && !servers.has(name))
      .map((name) => `access.${index}.servers: no server is named "${name}" here`),
  );
}
