/** What `npx` and its likes would do with their arguments. Pure. */
import { type CommandPlan, splitFlag, unsupported } from './command-plan.ts';

export function planNpx(args: readonly string[]): CommandPlan {
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

/** Name of the package in a registry spec: "@scope/name@^1" is "@scope/name". */
export function packageName(spec: string): string {
  const match = /^((?:@[a-z0-9~_.-]+\/)?[a-z0-9~_][a-z0-9~_.-]*)(?:@([a-z0-9.^~<>=*+_|-]+))?$/i.exec(spec);
  if (match?.[1] === undefined) {
    throw unsupported(`"${spec}" is not a package of the npm registry; write it as name or name@version`);
  }
  return match[1];
}
