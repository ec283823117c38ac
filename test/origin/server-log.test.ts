/** What servers write to stderr: kept within a bound, found again, followed. */
import { mkdtempSync, readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { sinceOf } from '../../cli/duration.ts';
import { matcherOf } from '../../cli/logs.ts';
import { type Log, openLog } from '../../origin/log.ts';
import { LogFiles } from '../../origin/log-file.ts';
import { entriesOf, machinesOf, serverFile, serverFolder } from '../../origin/server-log.ts';
import { Follower } from '../../origin/server-log-follower.ts';

let logs: string;
let now: number;
let log: Log;
const all = () => true;
const wanted = { since: 0, machine: undefined, matches: (texts: readonly string[]) => texts.map(all), last: 100 };
const texts = async (server: string, more: Partial<typeof wanted> = {}) =>
  (await entriesOf(logs, server, { ...wanted, ...more })).map(({ machine, text }) => `${machine} ${text}`);

beforeEach(() => {
  logs = mkdtempSync(join(tmpdir(), 'moorage-logs-'));
  onTestFinished(() => rmSync(logs, { recursive: true, force: true }));
  now = Date.parse('2026-01-01T00:00:00Z');
  log = openLog(
    logs,
    () => undefined,
    () => now,
  );
});

function following(lost: (machine: string) => void = () => expect.fail('Lines were lost.')): Follower {
  const follower = new Follower(logs, 'notes', lost);
  onTestFinished(() => follower.close());
  return follower;
}

/** One line a second. */
function write(server: string, machine: string, ...lines: string[]): void {
  for (const line of lines) {
    now += 1_000;
    log.server(server, machine, line);
  }
}

test('what all machines of a server wrote is one story', async () => {
  write('notes', 'a', 'one');
  write('notes', 'b.p-12', 'two');
  write('notes', 'a', 'three');
  write('other', 'a', 'no');
  expect(await texts('notes')).toEqual(['a one', 'b.p-12 two', 'a three']);
  expect(await texts('notes', { last: 1 })).toEqual(['a three']);
  expect(await texts('notes', { since: now - 1_500 })).toEqual(['a three']);
  expect(machinesOf(logs, 'nobody')).toEqual([]);
  expect(statSync(serverFile(logs, 'notes', 'a')).mode & 0o777).toBe(0o600);
});

test('a line of a server is a line, and drives no terminal', async () => {
  write('notes', 'a', 'x\n2026-01-01T00:00:00Z forged', '\x1b[2Jgone');
  expect(await texts('notes')).toEqual(['a x\ufffd2026-01-01T00:00:00Z forged', 'a \ufffd[2Jgone']);
});

test('files are put aside, the oldest goes, and what is left is read in order', async () => {
  const files = new LogFiles((code) => expect.fail(code));
  const path = serverFile(logs, 'notes', 'a');
  for (let n = 0; n < 100; n += 1) {
    files.append(path, `${new Date(n).toISOString()} line ${n}\n`, { maxBytes: 400, older: 3 });
  }
  const names = readdirSync(serverFolder(logs, 'notes')).sort();
  expect(names).toEqual(['a.log', 'a.log.1', 'a.log.2', 'a.log.3']);
  for (const name of names) expect(statSync(join(serverFolder(logs, 'notes'), name)).size).toBeLessThanOrEqual(400);
  const found = await texts('notes');
  expect(found.at(-1)).toBe('a line 99');
  expect(found).toEqual(found.map((_, index) => `a line ${100 - found.length + index}`));
});

test('a folder that is gone costs lines, never the agent', () => {
  const failures: string[] = [];
  new LogFiles((code) => failures.push(code)).append('/dev/null/no/x.log', 'x\n', { maxBytes: 10, older: 1 });
  expect(failures).toHaveLength(1);
});

test('a follower misses nothing when files are put aside faster than it looks, and says when one was removed', () => {
  const files = new LogFiles((code) => expect.fail(code));
  const append = (from: number, to: number) => {
    for (let n = from; n < to; n += 1)
      files.append(serverFile(logs, 'notes', 'a'), `2026-01-01T00:00:00.000Z ${n}\n`, { maxBytes: 300, older: 3 });
  };
  append(0, 5);
  const lost: string[] = [];
  const follower = following((machine) => lost.push(machine));
  append(5, 30);
  expect(follower.next().map(({ text }) => Number(text))).toEqual(Array.from({ length: 25 }, (_, n) => n + 5));
  expect(lost).toEqual([]);
  append(30, 100);
  const after = follower.next().map(({ text }) => Number(text));
  expect(after.at(-1)).toBe(99);
  expect(after).toEqual([...after].sort((a, b) => a - b));
  expect(lost).toEqual(['a']);
});

test('what was written before and what is followed are one story, also when half a line was written in between', async () => {
  const file = serverFile(logs, 'notes', 'a');
  const files = new LogFiles((code) => expect.fail(code));
  const append = (text: string, path = file) => files.append(path, text, { maxBytes: 100, older: 2 });
  append('2026-01-01T00:00:00.000Z one\n2026-01-01T00:00:00.000Z tw');
  const follower = following();
  append('o\n');
  for (const name of ['three', 'four', 'five']) append(`2026-01-01T00:00:00.000Z ${name}\n`);
  append('2026-01-01T00:00:00.000Z six\n', serverFile(logs, 'notes', 'b'));
  const told = [...(await entriesOf(logs, 'notes', wanted, (of) => follower.beginOf(of))), ...follower.next()];
  expect(told.map(({ text }) => text)).toEqual(['one', 'two', 'three', 'four', 'five', 'six']);
});

test('a follower reads on over a file that is put aside, and finds new machines', () => {
  const files = new LogFiles((code) => expect.fail(code));
  const append = (machine: string, text: string) =>
    files.append(serverFile(logs, 'notes', machine), `2026-01-01T00:00:00.000Z ${text}`, { maxBytes: 60, older: 2 });
  append('a', 'old\n');
  const follower = following();
  append('a', 'half');
  expect(follower.next()).toEqual([]);
  append('a', 'x\n');
  append('b', 'new machine €\n');
  append('a', 'after\n');
  const found = follower.next().map(({ machine, text }) => `${machine} ${text}`);
  expect(found).toContain('b new machine €');
  expect(found.at(-1)).toMatch(/after|new machine/);
  expect(found).toContain('a after');
  expect(follower.next()).toEqual([]);
});

test('what nobody wrote to for a month is removed at the next start', () => {
  write('notes', 'old', 'x');
  write('notes', 'new', 'x');
  utimesSync(serverFile(logs, 'notes', 'old'), 0, (now - 31 * 86_400_000) / 1000);
  utimesSync(serverFile(logs, 'notes', 'new'), 0, now / 1000);
  openLog(
    logs,
    () => undefined,
    () => now,
  );
  expect(machinesOf(logs, 'notes')).toEqual(['new']);
});

describe('moorage logs', () => {
  test('finds a text as it is, or a regular expression', () => {
    expect(matcherOf('a.b', undefined)(['a.b', 'axb'])).toEqual([true, false]);
    expect(matcherOf(undefined, 'a.b$')(['axb', 'axbc'])).toEqual([true, false]);
  });
  test('gives up an expression that takes for ever', () => {
    expect(() => matcherOf(undefined, '^(a+)+$')([`${'a'.repeat(60)}!`])).toThrow('takes too long');
  });
  test.each(['(', '['])('refuses %j', (text) => expect(() => matcherOf(undefined, text)).toThrow('--regexp'));
  test.each([
    ['15m', 100_000],
    ['1970-01-01T00:00:01Z', 1_000],
    [undefined, 0],
  ])('since %j', (text, at) => expect(sinceOf(text, 1_000_000)).toBe(at));
  test('refuses another time', () => expect(() => sinceOf('soon', 0)).toThrow('--since'));
});
