/**
 * From what people paste (`"command": "npx", "args": […]`) to what a machine needs. Pure: looks at no disk.
 *
 * A machine has Node and busybox, and Python where a command asks for it. Packages are installed on the host at build
 * time; a command that needs anything else is refused with the way out.
 */
import { type CommandPlan, type Given, unsupported } from './command-plan.ts';
import { planDocker } from './docker-command.ts';
import { planNpx } from './npx.ts';
import { planPipx, planPython, planUvx } from './python-command.ts';

const SHELL_COMMANDS = new Set(['sh', '/bin/sh', 'ash', 'busybox', 'cat', 'env']);
const HINTS: Readonly<Record<string, string>> = {
  uv: 'use "uvx" for a package, or "python" with "image" and "files" for a project',
  docker: 'only "docker run" is understood',
  podman: 'only "podman run" is understood',
  bun: 'machines have Node, not Bun; "npx" works for most packages',
  bunx: 'machines have Node, not Bun; "npx" works for most packages',
  deno: 'machines have Node, not Deno',
};

/** Translates one `command` and its `args`. Throws MachineError `command-unsupported`, whose message says what to do. */
export function planCommand(command: string, args: readonly string[], given: Given): CommandPlan {
  const name = command.replace(/^.*\//, '').replace(/\.(cmd|exe)$/i, '');
  if (name === 'npx' || name === 'pnpx') return planNpx(args);
  if (name === 'npm' && (args[0] === 'exec' || args[0] === 'x')) return planNpx(args.slice(1));
  if (name === 'pnpm' && args[0] === 'dlx') return planNpx(args.slice(1));
  if (name === 'uvx') return planUvx(args);
  if (name === 'uv' && args[0] === 'tool' && args[1] === 'run') return planUvx(args.slice(2));
  if (name === 'pipx' && args[0] === 'run') return planPipx(args.slice(1));
  if (/^python(3(\.\d+)?)?$/.test(name)) return planPython(args, given);
  if ((name === 'docker' || name === 'podman') && args[0] === 'run') return planDocker(args.slice(1));
  if (name === 'node') return planNode(args);
  if (given.image || SHELL_COMMANDS.has(command)) return { kind: 'plain', argv: [command, ...args] };
  const why = HINTS[name] ?? 'its package has to be named: "image": { "npm": […], "pip": […], "apt": […] }';
  throw unsupported(`"${command}" cannot run in a machine as it is: ${why}`);
}

const NODE_FLAGS_WITH_VALUE = new Set(['-r', '--require', '--import', '--loader', '-C', '--conditions']);

function planNode(args: readonly string[]): CommandPlan {
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    if (['-e', '--eval', '-p', '--print', '-v', '--version'].includes(arg))
      return { kind: 'plain', argv: ['node', ...args] };
    if (NODE_FLAGS_WITH_VALUE.has(arg)) index += 1;
    else if (!arg.startsWith('-')) {
      return {
        kind: 'files',
        interpreter: 'node',
        file: arg,
        flags: args.slice(0, index),
        args: args.slice(index + 1),
      };
    }
  }
  throw unsupported('node: no file is named');
}
