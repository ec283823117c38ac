/** What the authorization server remembers, on SQLite as Durable Objects have it. */
import { DatabaseSync } from 'node:sqlite';
import { beforeEach, expect, test } from 'vitest';
import { OAuthEntries } from '../../edge/auth/oauth/store.ts';
import type { SqlValue } from '../../edge/session/sql.ts';

const GRANT = 'grant:ada:one';
const TOKEN = 'token:ada:one:hash';
const HOUR = 60 * 60 * 1000;

let entries: OAuthEntries;
beforeEach(() => {
  const database = new DatabaseSync(':memory:');
  entries = new OAuthEntries({
    exec<Row>(query: string, ...bindings: SqlValue[]) {
      const rows = database.prepare(query).all(...(bindings as string[])) as Row[];
      return { toArray: () => rows, one: () => rows[0] as Row };
    },
  });
});

test('an entry is there until its time is over, which is told', () => {
  entries.put(GRANT, 'g', 100, 1);
  entries.put('client:c', 'c', null, 1);
  expect([entries.get(GRANT, 99), entries.endOf(GRANT, 99)]).toEqual(['g', 100]);
  expect([entries.get(GRANT, 100), entries.endOf(GRANT, 100)]).toEqual([null, undefined]);
  expect(entries.endOf('client:c', 100)).toBe(null);
});

test('a login that ends takes its tokens along, and no others', () => {
  for (const key of [GRANT, TOKEN, 'grant:ada:on', 'token:ada:on:hash']) entries.put(key, 'x', null, 1);
  entries.delete(GRANT, 2);
  expect(entries.list('', 10, '', 3).keys.map(({ name }) => name)).toEqual([
    'ended:ada:one',
    'grant:ada:on',
    'token:ada:on:hash',
  ]);
});

test('what refreshes a login while it ends does not bring it back', () => {
  entries.put(GRANT, 'before', null, 1);
  entries.delete(GRANT, 2);
  expect(entries.put(GRANT, 'after', null, 3)).toBe('ended');
  expect(entries.put(TOKEN, 'fresh', null, 3)).toBe('ended');
  expect([entries.get(GRANT, 4), entries.get(TOKEN, 4)]).toEqual([null, null]);
  expect(entries.put('grant:ada:two', 'another', null, 3)).toBe('kept');
});

test('a token that is revoked ends nothing else', () => {
  for (const key of [GRANT, TOKEN]) entries.put(key, 'x', null, 1);
  entries.delete(TOKEN, 2);
  expect(entries.get(GRANT, 3)).toBe('x');
  expect(entries.put('token:ada:one:fresh', 'x', null, 3)).toBe('kept');
});

test('that a login ended is not remembered for ever', () => {
  entries.put(GRANT, 'x', null, 1);
  entries.delete(GRANT, 1);
  entries.put('client:c', 'c', null, 1 + HOUR);
  expect(entries.list('ended:', 10, '', 2).keys).toEqual([]);
});
