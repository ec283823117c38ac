/** Who uses a state folder: real processes race for it, die in it, and hand it on. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { holderOf, takeState } from '../../router/state.ts';

const MODULE = new URL('../../router/state.ts', import.meta.url).href;
const folder = () => mkdtempSync(join(tmpdir(), 'moorage-state-'));

/** A process that tries to take the folder, says how that went, and stays until its stdin ends. */
function taker(dir: string) {
  const source = `import { takeState } from ${JSON.stringify(MODULE)};
    try { takeState(${JSON.stringify(dir)}, 'stdio').publish('http://x'); console.log('took'); }
    catch (error) { console.log(error.code); }
    process.stdin.resume();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['pipe', 'pipe', 'inherit'] });
  return { child, said: once(child.stdout, 'data').then(([data]) => String(data).trim()) };
}

describe('a state folder', () => {
  test('of many that come at once after a crash, one gets it', async () => {
    const dir = folder();
    writeFileSync(join(dir, 'up.json'), JSON.stringify({ pid: 1, start: 'not its start', kind: 'up' }));
    const takers = Array.from({ length: 6 }, () => taker(dir));
    const said = await Promise.all(takers.map((one) => one.said));
    expect(said.sort()).toEqual([...Array.from({ length: 5 }, () => 'state_in_use'), 'took']);
    const winner = takers.find(({ child }) => child.pid === holderOf(dir)?.pid);
    expect(holderOf(dir)).toMatchObject({ kind: 'stdio', url: 'http://x' });
    expect(readdirSync(dir)).toEqual(['up.json']);
    winner?.child.kill('SIGKILL');
    if (winner) await once(winner.child, 'exit');
    expect(holderOf(dir)).toBeUndefined();
    takeState(dir, 'up').release();
    for (const { child } of takers) child.stdin.end();
  });

  test('its user is named by what it is', () => {
    const dir = folder();
    const state = takeState(dir, 'program');
    expect(() => takeState(dir, 'up')).toThrow(new RegExp(`inside a program \\(process ${process.pid}\\)`));
    expect(holderOf(dir)).toEqual({ pid: process.pid, start: expect.any(String), kind: 'program' });
    state.release();
    expect(holderOf(dir)).toBeUndefined();
  });

  test.each(['', '{', 'null', '{"pid":"x"}'])('a file that says nothing (%j) is nobody’s', (text) => {
    const dir = folder();
    writeFileSync(join(dir, 'up.json'), text);
    expect(holderOf(dir)).toBeUndefined();
    takeState(dir, 'up').release();
  });
});
