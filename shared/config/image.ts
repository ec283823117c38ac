/** Owns `image` of a server: the packages that its machine is made of. */
import { z } from 'zod';

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
export const image = recipe.optional();

/** Whether `spec` is a package of a Python index with its versions, and nothing that pip would take for anything else. */
export const isPipSpec = (spec: string): boolean => PIP_SPEC.test(spec);
