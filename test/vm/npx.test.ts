import { expect, test } from 'vitest';
import { type CommandPlan, packageName, planCommand } from '../../origin/images/npx.ts';
import { MachineError } from '../../origin/vm/error.ts';

const memory = '@modelcontextprotocol/server-memory';

const plans: [line: string, plan: CommandPlan][] = [
  [`npx -y ${memory}`, { kind: 'npm', npm: [memory], bin: { package: memory }, args: [] }],
  [
    `npx --yes ${memory}@1.2.3 --flag x`,
    { kind: 'npm', npm: [`${memory}@1.2.3`], bin: { package: memory }, args: ['--flag', 'x'] },
  ],
  ['npx -y server@latest -y', { kind: 'npm', npm: ['server@latest'], bin: { package: 'server' }, args: ['-y'] }],
  ['npx -y -- server --yes', { kind: 'npm', npm: ['server'], bin: { package: 'server' }, args: ['--yes'] }],
  [
    'npx -y -p server@2 tool a',
    { kind: 'npm', npm: ['server@2'], bin: { package: 'server', name: 'tool' }, args: ['a'] },
  ],
  [
    'npx --package=@a/tool -p extra tool',
    { kind: 'npm', npm: ['@a/tool', 'extra'], bin: { package: '@a/tool', name: 'tool' }, args: [] },
  ],
  ['npm exec -y server x', { kind: 'npm', npm: ['server'], bin: { package: 'server' }, args: ['x'] }],
  ['npm x -- server', { kind: 'npm', npm: ['server'], bin: { package: 'server' }, args: [] }],
  ['pnpm dlx server', { kind: 'npm', npm: ['server'], bin: { package: 'server' }, args: [] }],
  ['/usr/local/bin/npx -y server', { kind: 'npm', npm: ['server'], bin: { package: 'server' }, args: [] }],
  ['node ./dist/index.js --port 1', { kind: 'files', file: './dist/index.js', nodeArgs: [], args: ['--port', '1'] }],
  ['node --import ./a.js b.js', { kind: 'files', file: 'b.js', nodeArgs: ['--import', './a.js'], args: [] }],
  ['node -e 1', { kind: 'plain', argv: ['node', '-e', '1'] }],
  ['sh -c true', { kind: 'plain', argv: ['sh', '-c', 'true'] }],
];

test.each(plans)('%s', (line, plan) => {
  const [command = '', ...args] = line.split(' ');
  expect(planCommand(command, args)).toEqual(plan);
});

const refused: [line: string, says: RegExp][] = [
  ['uvx mcp-server-time', /no Python/],
  ['python3 -m server', /no Python/],
  ['docker run image', /no containers/],
  ['bunx server', /not Bun/],
  ['github-mcp stdio', /only Node/],
  ['npx', /no package/],
  ['npx -y', /no package/],
  ['npx -p', /needs a package/],
  ['npx --call x', /not understood/],
  ['npx github:user/repo', /not a package/],
  ['npx ./folder', /not a package/],
  ['node', /no file/],
];

test.each(refused)('refuses %s and says which runtime to use', (line, says) => {
  const [command = '', ...args] = line.split(' ');
  const attempt = () => planCommand(command, args);
  expect(attempt).toThrow(MachineError);
  expect(attempt).toThrow(says);
  expect(attempt).toThrow(/"runtime": "process".*"url"/);
});

test.each([
  ['a', 'a'],
  ['a@1', 'a'],
  ['@s/a', '@s/a'],
  ['@s/a@^1.0.0', '@s/a'],
])('the package of %s is %s', (spec, name) => expect(packageName(spec)).toBe(name));
