/** Owns `image` of a server: the packages that its machine is made of, or the container image that it runs in. */
import { z } from 'zod';
import { parseOciReference } from './oci-reference.ts';

/** `name`, `name@version` or `name@range`, with or without a scope. */
const npmSpec = z
  .string()
  .regex(
    /^(?:@[a-z0-9~_.-]+\/)?[a-z0-9~_][a-z0-9~_.-]*(?:@[a-z0-9.^~<>=*+_|-]+)?$/i,
    'write a package of the npm registry, such as "name@1.2.3"',
  );

const PIP_SPEC =
  /^[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?:\[[a-z0-9._,-]+\])?(?:(?:===?|~=|!=|<=?|>=?)[a-z0-9.*+!_-]+(?:,(?=[=~!<>]))?)*$/i;
const pipSpec = z.string().regex(PIP_SPEC, 'write a package of the Python index, such as "name==1.2.3"');

const aptSpec = z
  .string()
  .regex(/^[a-z0-9][a-z0-9+.-]*[a-z0-9+](?:=[a-z0-9.+~:-]+)?$/i, 'write a Debian package, such as "git"');

const packages = <T extends z.ZodType>(spec: T) => z.array(spec).max(200).default([]);

const recipe = z.strictObject({
  /** Node is in every machine; `python` adds Python. */
  base: z.enum(['node', 'python']).default('node'),
  npm: packages(npmSpec),
  pip: packages(pipSpec),
  apt: packages(aptSpec),
});

export type Recipe = z.infer<typeof recipe>;

const oci = z
  .string()
  .refine((text) => parseOciReference(text) !== undefined)
  .transform((text) => text as `oci:${string}`);

/** Of a server: a recipe, or the name of an OCI image. */
export const image = z.union([oci, recipe], { error: (issue) => fault(issue.input) }).optional();

/** A union names none of its members' faults: those of the recipe are what its writer wants to know. */
function fault(input: unknown): string {
  const checked = recipe.safeParse(input);
  const issue = checked.error?.issues[0];
  if (typeof input !== 'object' || input === null || issue === undefined)
    return 'write "oci:registry/name:tag@sha256:…", "oci:./layout-or-saved.tar", or { "pip": ["name==1.2.3"], … }';
  return [issue.path.join('.'), issue.message].filter(Boolean).join(': ');
}

export type Image = z.infer<typeof image>;
export const isOciImage = (value: Image): value is `oci:${string}` => typeof value === 'string';
/** The recipe of a server that has one. */
export const recipeOf = (value: Image): Recipe | undefined => (typeof value === 'object' ? value : undefined);

/** Whether `spec` is a package of a Python index with its versions, and nothing that pip would take for anything else. */
export const isPipSpec = (spec: string): boolean => PIP_SPEC.test(spec);
