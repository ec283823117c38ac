/** What `uvx`, `pipx run` and `python` would do with their arguments. Pure. */
import { isPipSpec } from '../../shared/config/image.ts';
import { type CommandPlan, type Given, readRunner, unsupported } from './command-plan.ts';

/** `uvx [--from SPEC] [--with SPEC] NAME[@VERSION] …` */
export function planUvx(args: readonly string[]): CommandPlan {
  return planTool('uvx', args, { from: ['--from'], with: ['--with', '-w'], quiet: ['-q', '--quiet', '--no-progress'] });
}

/** `pipx run [--spec SPEC] NAME …` */
export function planPipx(args: readonly string[]): CommandPlan {
  return planTool('pipx', args, { from: ['--spec'], with: ['--with'], quiet: ['-q', '--quiet', '--no-cache'] });
}

interface Options {
  /** Names of the option that says which package has the program. */
  from: string[];
  with: string[];
  /** Options that say nothing to us. */
  quiet: string[];
}

function planTool(tool: string, args: readonly string[], options: Options): CommandPlan {
  const packages = [...options.from, ...options.with];
  const { given, program, rest } = readRunner(tool, args, { packages, quiet: options.quiet });
  const from = given.findLast(({ flag }) => options.from.includes(flag))?.value;
  const extra = given.flatMap(({ flag, value }) => (options.with.includes(flag) ? value.split(',') : []));
  const [name = '', version] = program.split('@');
  const atVersion = version === undefined || version === 'latest' ? '' : `==${version}`;
  const spec = pipSpec(from ?? `${name}${atVersion}`);
  const bin = { package: distributionName(spec), name: from === undefined ? distributionName(spec) : name };
  return { kind: 'pip', pip: [spec, ...extra.map(pipSpec)], bin, args: rest };
}

/** A spec as pip takes it, without blanks. */
function pipSpec(spec: string): string {
  const tight = spec.replaceAll(/\s/g, '');
  if (!isPipSpec(tight)) {
    throw unsupported(`"${spec}" is not a package of a Python index; write it as name or name==version`);
  }
  return tight;
}

const distributionName = (spec: string): string => /^[a-z0-9._-]*/i.exec(spec)?.[0] ?? spec;

const FLAGS_WITH_VALUE = new Set(['-W', '-X']);

export function planPython(args: readonly string[], given: Given): CommandPlan {
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    const plain: CommandPlan = { kind: 'plain', argv: ['python3', ...args], python: true };
    if (arg === '-c' || arg === '-V' || arg === '--version') return plain;
    if (arg === '-m') {
      const name = args[index + 1];
      if (name === undefined) throw unsupported('python: -m needs a module');
      if (given.image || given.files) return plain;
      // Module and package may have different names: one that is guessed could be anybody's.
      throw unsupported(`python: say which package has the module "${name}": "image": { "pip": ["PACKAGE==VERSION"] }`);
    }
    if (FLAGS_WITH_VALUE.has(arg)) index += 1;
    else if (!arg.startsWith('-')) {
      const [flags, rest] = [args.slice(0, index), args.slice(index + 1)];
      return { kind: 'files', interpreter: 'python3', file: arg, flags, args: rest };
    }
  }
  throw unsupported('python: no file is named');
}
