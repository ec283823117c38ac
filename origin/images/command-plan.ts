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
