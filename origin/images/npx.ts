/** What `npx` and its likes would do with their arguments. Pure. */
import { type CommandPlan, readRunner, unsupported } from './command-plan.ts';

const OPTIONS = {
  packages: ['-p', '--package'],
  quiet: ['-y', '--yes', '-q', '--quiet', '--silent', '--prefer-offline', '--prefer-online'],
};

export function planNpx(args: readonly string[]): CommandPlan {
  const { given, program: first, rest } = readRunner('npx', args, OPTIONS);
  const packages = given.map(({ value }) => value);
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
