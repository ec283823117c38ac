/** The rules that a tool can hold: format and lint, types per runtime, no path of somebody's machine. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const ROOT = new URL('../..', import.meta.url).pathname;
const run = async (file: string, args: string[]) => {
  const result = await promisify(execFile)(file, args, { cwd: ROOT, maxBuffer: 1 << 24 }).catch(
    (error: { stdout: string; stderr: string }) => error,
  );
  return `${result.stdout}${result.stderr}`;
};

test('formatter and linter find nothing', { timeout: 120_000 }, async () => {
  expect(await run('biome', ['check', '--error-on-warnings'])).toMatch(/No fixes applied/);
});

test.each(['shared', 'edge', 'edge/local', 'origin', 'router', 'cli', 'bench', 'test'])(
  '%s type-checks in its own runtime',
  { timeout: 120_000 },
  async (folder) => {
    expect(await run('tsc', ['-p', folder])).toBe('');
  },
);

test('no tracked file names a folder of a machine or of what lies beside the project', async () => {
  const found = await run('git', [
    'grep',
    '-nIE',
    '(^|[^a-z])/(work|farm)/|\\.\\./shared/(design|protocol|edge|vm|style|field|bench)',
    '--',
    '.',
    ':!test/house/house.test.ts',
  ]);
  expect(found).toBe('');
});
