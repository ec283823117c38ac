/** The command line as its user meets it: help, wrong usage, and what it says when no router runs. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { COMMANDS } from '../../cli/commands.ts';
import { table } from '../../cli/table.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const empty = mkdtempSync(join(tmpdir(), 'moorage-cli-'));
afterAll(() => rmSync(empty, { recursive: true }));

function moorage(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['cli/moorage.ts', ...args], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  return { code: status, out: stdout, err: stderr };
}

describe('moorage', () => {
  test('help lists every command', () => {
    const { code, out } = moorage('help');
    expect(code).toBe(0);
    for (const { call } of Object.values(COMMANDS)) expect(out).toContain(`  ${call}`);
  });

  test('each command explains itself under the name by which it is called', async () => {
    for (const [name, entry] of Object.entries(COMMANDS)) {
      const { command } = await entry.load();
      expect(command.usage.startsWith(name), name).toBe(true);
      expect(command.usage.endsWith('\n'), name).toBe(true);
      expect(entry.call.startsWith(name), name).toBe(true);
    }
  });

  test.each([
    [['sail'], 2, 'Unknown command: "sail"'],
    [['--port', '1', 'up'], 2, 'Name a command first'],
    [['up', '--por', '1'], 2, "Unknown option '--por'"],
    [['up', 'now'], 2, 'takes no arguments'],
    [['up', '--port', 'x'], 2, '--port takes a number'],
    [['stdio'], 2, 'Which server?'],
    [['policy', 'notes'], 2, 'moorage policy explain'],
    [['machines', '--state', empty], 2, 'No router runs here'],
  ])('%j: exit code %d and %s', (args, code, text) => {
    const result = moorage(...args);
    expect(result.err).toContain(text);
    expect(result.code).toBe(code);
    expect(result.out).toBe('');
  });
});

test('a table shows what a cell holds and drives no terminal', () => {
  expect(table(['A', 'LONG'], [['x\u001b[2J', 'y']])).toBe('A      LONG\nx\ufffd[2J  y\n');
});
