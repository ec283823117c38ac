/** What a command of a configuration comes down to in a machine. */
import { MachineError } from '../vm/error.ts';

/** Which program to run: the `bin` named `name`, or the default one of `package` (a package name without version). */
export type BinRef = { package: string; name?: string };

export type CommandPlan =
  /** Install `npm` (specs such as "@scope/name@1.2.3"), then run `bin` with `args`. */
  | { kind: 'npm'; npm: string[]; bin: BinRef; args: string[] }
  /** Install `pip` (specs such as "name==1.2.3"), then run `bin` with `args`. */
  | { kind: 'pip'; pip: string[]; bin: BinRef; args: string[] }
  /** Run a host file with an interpreter: its folder is copied into the machine. `file` is as written. */
  | { kind: 'files'; interpreter: 'node' | 'python3'; file: string; flags: string[]; args: string[] }
  /** Run something that the machine has. */
  | { kind: 'plain'; argv: string[]; python?: boolean }
  /** Run what a container image says, but for what is said here. */
  | {
      kind: 'container';
      image: `oci:${string}`;
      command?: string;
      args: readonly string[];
      env: Readonly<Record<string, string>>;
      workdir?: string;
    };

/** What else an entry says that decides what its command may be. */
export interface Given {
  /** It has an `image`: whatever that brings may be called. */
  image: boolean;
  /** It has `files`. */
  files: boolean;
}

const INSTEAD =
  'set "runtime": "process" to run it on the host without isolation, or start it yourself and give its "url"';

export function unsupported(message: string): MachineError {
  return new MachineError('command-unsupported', `${message}. Or ${INSTEAD}.`);
}

/** A long option and its value where they are written as one. */
export function splitFlag(arg: string): [string, string | undefined] {
  const at = arg.indexOf('=');
  return at < 0 || !arg.startsWith('--') ? [arg, undefined] : [arg.slice(0, at), arg.slice(at + 1)];
}

export interface RunnerOptions {
  /** Options that name packages. */
  readonly packages: readonly string[];
  /** Options that say nothing to us. */
  readonly quiet: readonly string[];
}

/**
 * Reads a command that runs a program out of a package (`npx`, `uvx` …): the packages that its options name, the program,
 * its arguments.
 */
export function readRunner(tool: string, args: readonly string[], { packages, quiet }: RunnerOptions) {
  const given: { readonly flag: string; readonly value: string }[] = [];
  let index = 0;
  for (; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    if (arg === '--') {
      index += 1;
      break;
    }
    if (!arg.startsWith('-')) break;
    const [flag, inline] = splitFlag(arg);
    if (packages.includes(flag)) {
      const value = inline ?? args[++index];
      if (value === undefined) throw unsupported(`${tool}: ${flag} needs a package`);
      given.push({ flag, value });
    } else if (!quiet.includes(flag)) {
      throw unsupported(`${tool}: the option ${arg} is not understood; name the package directly`);
    }
  }
  const [program, ...rest] = args.slice(index);
  if (program === undefined) throw unsupported(`${tool}: no package is named`);
  return { given, program, rest };
}
