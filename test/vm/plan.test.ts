import { expect, test } from 'vitest';
import type { CommandPlan } from '../../origin/images/command-plan.ts';
import { packageName } from '../../origin/images/npx.ts';
import { planCommand } from '../../origin/images/plan.ts';
import { MachineError } from '../../origin/vm/error.ts';

const memory = '@modelcontextprotocol/server-memory';

const tool = (name: string, pip: string[], args: string[] = []): CommandPlan & { kind: 'pip' } => ({
  kind: 'pip',
  pip,
  bin: { package: name, name },
  args,
});

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
  [
    'node ./dist/index.js --port 1',
    { kind: 'files', interpreter: 'node', file: './dist/index.js', flags: [], args: ['--port', '1'] },
  ],
  [
    'node --import ./a.js b.js',
    { kind: 'files', interpreter: 'node', file: 'b.js', flags: ['--import', './a.js'], args: [] },
  ],
  ['node -e 1', { kind: 'plain', argv: ['node', '-e', '1'] }],
  ['uvx mcp-server-time', tool('mcp-server-time', ['mcp-server-time'])],
  ['uvx mcp-server-time@1.2 --zone x', tool('mcp-server-time', ['mcp-server-time==1.2'], ['--zone', 'x'])],
  ['uvx tool@latest', tool('tool', ['tool'])],
  ['uvx tool[cli]==2', tool('tool', ['tool[cli]==2'])],
  [
    'uvx --from big[x]>=1,<2 --with extra,more tool -q',
    { ...tool('big', ['big[x]>=1,<2', 'extra', 'more'], ['-q']), bin: { package: 'big', name: 'tool' } },
  ],
  ['uv tool run tool', tool('tool', ['tool'])],
  ['pipx run tool a', tool('tool', ['tool'], ['a'])],
  ['pipx run --spec=big==1 tool', { ...tool('big', ['big==1']), bin: { package: 'big', name: 'tool' } }],
  ['python3 -u serve.py x', { kind: 'files', interpreter: 'python3', file: 'serve.py', flags: ['-u'], args: ['x'] }],
  ['python -c 1', { kind: 'plain', argv: ['python3', '-c', '1'], python: true }],
  ['docker run -i --rm mcp/time', { kind: 'container', image: 'oci:mcp/time', args: [], env: {} }],
  [
    'docker run --rm -i -e TOKEN -e A=b=c --entrypoint /bin/x --workdir=/w ghcr.io/a/b:1 stdio -e',
    {
      kind: 'container',
      image: 'oci:ghcr.io/a/b:1',
      command: '/bin/x',
      workdir: '/w',
      args: ['stdio', '-e'],
      env: { A: 'b=c' },
    },
  ],
  ['sh -c true', { kind: 'plain', argv: ['sh', '-c', 'true'] }],
];

test.each(plans)('%s', (line, plan) => {
  const [command = '', ...args] = line.split(' ');
  expect(planCommand(command, args, { image: false, files: false })).toEqual(plan);
});

const refused: [line: string, says: RegExp][] = [
  ['uvx', /no package/],
  ['uvx --from', /needs a package/],
  ['uvx --python 3.12 tool', /not understood/],
  ['uvx --from git+https://example.com/x.git tool', /not a package/],
  ['uvx -e.', /not understood/],
  ['uvx tool==1;python_version>"3"', /not a package/],
  ['uv run server', /"uvx"/],
  ['python3 -m server', /which package has the module "server"/],
  ['python', /no file/],
  ['docker compose up', /only "docker run"/],
  ['docker run -v /:/host image', /shares no folder/],
  ['docker run --privileged image', /not understood/],
  ['docker run -i --rm', /no image/],
  ['docker run UPPER', /not the name of an image/],
  ['bunx server', /not Bun/],
  ['github-mcp stdio', /its package has to be named/],
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
  const attempt = () => planCommand(command, args, { image: false, files: false });
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

test('with an image or files a module may be named, and with an image any command', () => {
  const plain = (...argv: string[]) => ({ kind: 'plain', argv });
  const module = { ...plain('python3', '-m', 'server', 'x'), python: true };
  expect(planCommand('python', ['-m', 'server', 'x'], { image: true, files: false })).toEqual(module);
  expect(planCommand('python', ['-m', 'server', 'x'], { image: false, files: true })).toEqual(module);
  expect(planCommand('mcp-server', ['x'], { image: true, files: false })).toEqual(plain('mcp-server', 'x'));
});
