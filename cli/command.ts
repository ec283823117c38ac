/** Owns what a command of the command line is. Types, and the options that every command has. */
import type { ParseArgsOptionsConfig } from 'node:util';

/** What the user typed after the command's name, parsed by its `options`. */
export interface Input {
  readonly positionals: readonly string[];
  readonly values: Readonly<Record<string, string | boolean | readonly string[] | undefined>>;
  /** Everything after `--`, as it was typed. */
  readonly rest: readonly string[];
  /** The configuration file, and the state folder where one was named. */
  readonly config: string;
  readonly state: string | undefined;
}

export interface Command {
  /** One or more lines for `moorage help <command>`: what it is called with, then what its options mean. */
  readonly usage: string;
  readonly options: ParseArgsOptionsConfig;
  /** @returns the exit code. @throws UsageError (2), or any failure that a message explains (1). */
  run(input: Input): Promise<number>;
}

/** Options of every command. */
export const COMMON_OPTIONS = {
  config: { type: 'string' },
  state: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies ParseArgsOptionsConfig;

export const COMMON_USAGE = `  --config FILE  the configuration (default: moorage.jsonc)
  --state DIR    keys, disks and logs (default: .moorage beside the configuration)
`;

/** The option `name`, where it was given as text. */
export function textOf(input: Input, name: string): string | undefined {
  const value = input.values[name];
  return typeof value === 'string' ? value : undefined;
}

/** The texts of an option that may be repeated. */
export function textsOf(input: Input, name: string): readonly string[] {
  const value = input.values[name];
  return Array.isArray(value) ? value : [];
}
