/**
 * Owns how the configuration names secrets: `secrets` of a server that is started here, and `${secret:NAME}` in the headers
 * of one that is reached over HTTP. Names alone: values are in the origin's store (`origin/secrets/`).
 */
import { z } from 'zod';

/** A secret's name could be that of a variable, which it mostly is. */
export const secretName = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'name a secret with letters, digits and "_", such as "GITHUB_TOKEN"');

const variable = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'this is not a name of an environment variable');

/** One secret of a process: the variable in which it gets it. */
export interface SecretVariable {
  readonly env: string;
  readonly secret: string;
}

const one = z.union(
  [
    secretName.transform((secret): SecretVariable => ({ env: secret, secret })),
    z.strictObject({ env: variable, secret: secretName }),
  ],
  { error: 'write the name of a secret such as "GITHUB_TOKEN", or { "env": "TOKEN", "secret": "GITHUB_TOKEN" }' },
);

/** `secrets` of a server: `["GITHUB_TOKEN", { "env": "TOKEN", "secret": "GITHUB_TOKEN" }]`. */
export const secrets = z
  .array(one)
  .max(64)
  .refine(
    (list) => new Set(list.map(({ env }) => env)).size === list.length,
    'two secrets would be in the same variable: give one of them another "env"',
  );

const REFERENCE = /\$\{secret:([A-Za-z_][A-Za-z0-9_]{0,127})\}/g;

/** Names of the secrets that a text refers to, each once. */
export function secretsIn(text: string): string[] {
  return [...new Set([...text.matchAll(REFERENCE)].map(([, name = '']) => name))];
}

/** The text with every reference replaced. */
export function withSecrets(text: string, lookup: (name: string) => string): string {
  return text.replaceAll(REFERENCE, (_reference, name: string) => lookup(name));
}

/** Whether every `${secret:` of a text is a whole reference. */
export function areReferencesWhole(text: string): boolean {
  return !text.replaceAll(REFERENCE, '').includes('${secret:');
}
