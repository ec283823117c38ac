/** Owns what a server's entry says about its words on their way to clients. docs/output.md explains it. */
import { z } from 'zod';

const UNITS = { K: 1024, M: 1024 * 1024 } as const;

const bytes = z.union(
  [
    z.number().int().min(1024),
    z
      .string()
      .regex(/^[1-9][0-9]{0,4}[KM]$/)
      .transform((text) => Number(text.slice(0, -1)) * UNITS[text.at(-1) as keyof typeof UNITS]),
  ],
  { error: 'write a size such as "256K" or "2M"' },
);

/** Of every server, whatever its runtime. Nothing of it decides what runs. */
export const output = {
  /** What is done with characters that nobody sees and terminals obey: removed, made visible, or nothing. */
  output: z.enum(['strip', 'mark', 'off']).optional(),
  /** The largest result that is passed on. */
  maxResultBytes: bytes.optional(),
  /** What becomes of tools whose definition changes at run time: nothing, a warning, or they are held back. */
  pins: z.enum(['off', 'warn', 'hold']).optional(),
};
const OPTIONS = ['output', 'maxResultBytes', 'pins'] as const satisfies readonly (keyof typeof output)[];

/** As the edge is told it. */
export const outputSetting = z.strictObject(output);
export type OutputSetting = z.infer<typeof outputSetting>;

/** What an entry says of it; undefined where that is nothing. */
export function outputOf(entry: OutputSetting): OutputSetting | undefined {
  const given = OPTIONS.flatMap((name) => (entry[name] === undefined ? [] : [[name, entry[name]]]));
  return given.length === 0 ? undefined : (Object.fromEntries(given) as OutputSetting);
}

/** Whether a member of an entry is one of these. */
export const isOutputOption = (name: string): boolean => Object.hasOwn(output, name);
