/**
 * From what people paste (`"command": "npx", "args": […]`) to what a machine needs. Pure: looks at no disk.
 *
 * A machine has Node and busybox and no network, so packages are installed on the host at build time, and a command
 * that needs another language's runtime is refused with the runtime to use instead.
 */
import { MachineError } from '../vm/error.ts';

/** Which program to run: the `bin` named `name`, or the default one of `package` (a package name without version). */
export type BinRef = { package: string; name?: string };

export type CommandPlan =
  /** Install `npm` (specs such as "@scope/name@1.2.3"), then run `bin` with `args`. */
  | { kind: 'npm'; npm: string[]; bin: BinRef; args: string[] }
  /** Run a host file with Node: its folder is copied into the machine. `file` is as written. */
  | { kind: 'files'; file: string; nodeArgs: string[]; args: string[] }
  /** Run something that every machine has. */
  | { kind: 'plain'; argv: string[] };

const INSTEAD =
  'set "runtime": "process" to run it on the host without isolation, or start it yourself and give its "url"';
const SHELL_COMMANDS = new Set(['sh', '/bin/sh', 'ash', 'busybox', 'cat', 'env']);
const HINTS: Readonly<Record<string, string>> = {
  uvx: 'machines have no Python',
  uv: 'machines have no Python',
  pipx: 'machines have no Python',
  python: 'machines have no Python',
  python3: 'machines have no Python',
  docker: 'machines run no containers',
  podman: 'machines run no containers',
  bun: 'machines have Node, not Bun; "npx" works for most packages',
  bunx: 'machines have Node, not Bun; "npx" works for most packages',
  deno: 'machines have Node, not Deno',
};

/** Translates one `command` and its `args`. Throws MachineError `command-unsupported`, whose message says what to do. */
export function planCommand(command: string, args: readonly string[]): CommandPlan {
  const name = command.replace(/^.*\//, '').replace(/\.(cmd|exe)$/i, '');
  if (name === 'npx' || name === 'pnpx') return planNpx(args);
  if (name === 'npm' && (args[0] === 'exec' || args[0] === 'x')) return planNpx(args.slice(1));
  if (name === 'pnpm' && args[0] === 'dlx') return planNpx(args.slice(1));
  if (name === 'node') return planNode(args);
  if (SHELL_COMMANDS.has(command)) return { kind: 'plain', argv: [command, ...args] };
  const why = HINTS[name] ?? 'machines have only Node and a small shell';
  throw unsupported(`"${command}" cannot run in a machine: ${why}`);
}

function planNpx(args: readonly string[]): CommandPlan {
  const packages: string[] = [];
  let index = 0;
  for (; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    if (arg === '--') {
      index += 1;
      break;
    }
    if (!arg.startsWith('-')) break;
    const [flag, inline] = splitFlag(arg);
    if (flag === '-p' || flag === '--package') {
      const value = inline ?? args[++index];
      if (value === undefined) throw unsupported('npx: -p needs a package');
      packages.push(value);
    } else if (!['-y', '--yes', '-q', '--quiet', '--silent', '--prefer-offline', '--prefer-online'].includes(flag)) {
      throw unsupported(`npx: the option ${arg} is not understood; name the package directly`);
    }
  }
  const [first, ...rest] = args.slice(index);
  if (first === undefined) throw unsupported('npx: no package is named');
  if (packages.length === 0) {
    return { kind: 'npm', npm: [first], bin: { package: packageName(first) }, args: rest };
  }
  const names = packages.map(packageName);
  const own = names.find((candidate) => candidate === first || candidate.replace(/^@[^/]+\//, '') === first);
  return { kind: 'npm', npm: packages, bin: { package: own ?? names[0] ?? first, name: first }, args: rest };
}

function splitFlag(arg: string): [string, string | undefined] {
  const at = arg.indexOf('=');
  return at < 0 || !arg.startsWith('--') ? [arg, undefined] : [arg.slice(0, at), arg.slice(at + 1)];
}

/** Name of the package in a registry spec: "@scope/name@^1" is "@scope/name". */
export function packageName(spec: string): string {
  const match = /^((?:@[a-z0-9~_.-]+\/)?[a-z0-9~_][a-z0-9~_.-]*)(?:@([a-z0-9.^~<>=*+_|-]+))?$/i.exec(spec);
  if (match?.[1] === undefined) {
    throw unsupported(`"${spec}" is not a package of the npm registry; write it as name or name@version`);
  }
  return match[1];
}

const NODE_FLAGS_WITH_VALUE = new Set(['-r', '--require', '--import', '--loader', '-C', '--conditions']);

function planNode(args: readonly string[]): CommandPlan {
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    if (['-e', '--eval', '-p', '--print', '-v', '--version'].includes(arg))
      return { kind: 'plain', argv: ['node', ...args] };
    if (NODE_FLAGS_WITH_VALUE.has(arg)) index += 1;
    else if (!arg.startsWith('-')) {
      return { kind: 'files', file: arg, nodeArgs: args.slice(0, index), args: args.slice(index + 1) };
    }
  }
  throw unsupported('node: no file is named');
}

function unsupported(message: string): MachineError {
  return new MachineError('command-unsupported', `${message}. Or ${INSTEAD}.`);
}
