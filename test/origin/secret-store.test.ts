/** Secrets at rest: sealed, bound to their place, found for whom they are set, and opened again after a change of the key. */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, test } from 'vitest';
import { SecretStore } from '../../origin/secrets/store.ts';

const root = mkdtempSync(join(tmpdir(), 'moorage-secrets-'));
afterAll(() => rmSync(root, { recursive: true }));
let folders = 0;
function fresh() {
  const dir = join(root, String(++folders));
  mkdirSync(dir);
  return { dir, store: new SecretStore(dir, { now: () => 5, credentials: undefined }) };
}
const VALUE = 'ghp_0123456789abcdef';

test('a value is found again, by others too, and is in no file', () => {
  const { dir, store } = fresh();
  expect(store.list()).toEqual([]);
  expect(store.find('TOKEN', 's', undefined)).toBeUndefined();
  expect(existsSync(join(dir, 'secrets.db'))).toBe(false);
  store.set({ name: 'TOKEN' }, VALUE);
  expect(store.find('TOKEN', 's', 'p')?.value).toBe(VALUE);
  expect(new SecretStore(dir).find('TOKEN', 's', 'p')?.value).toBe(VALUE);
  expect(store.list()).toEqual([{ name: 'TOKEN', changedAt: 5 }]);
  for (const file of ['secrets.db', 'secrets.key']) {
    expect(readFileSync(join(dir, file)).includes(VALUE)).toBe(false);
    expect(statSync(join(dir, file)).mode & 0o777).toBe(0o600);
  }
  const first = store.find('TOKEN', 's', 'p')?.revision;
  store.set({ name: 'TOKEN' }, VALUE);
  expect(store.find('TOKEN', 's', 'p')?.revision).not.toBe(first);
});

test('one for the principal wins over one for all, then one for the server', () => {
  const { store } = fresh();
  const places = [{}, { server: 's' }, { principal: 'p' }, { server: 's', principal: 'p' }];
  const found = () => store.find('T', 's', 'p')?.value;
  for (const [n, place] of places.entries()) {
    store.set({ name: 'T', ...place }, `value number ${n}`);
    expect(found()).toBe(`value number ${n}`);
  }
  expect(store.find('T', 's', 'other')?.value).toBe('value number 1');
  expect(store.find('T', 'other', 'p')?.value).toBe('value number 2');
  expect(store.find('T', 'other', undefined)?.value).toBe('value number 0');
  expect(store.remove({ name: 'T', server: 's', principal: 'p' })).toBe(true);
  expect(store.remove({ name: 'T', server: 's', principal: 'p' })).toBe(false);
  expect(found()).toBe('value number 2');
  expect(store.list()).toHaveLength(3);
});

test.each([
  ['short', { name: 'T' }, '1234567', /shorter than 8 characters: it could not be told from ordinary words/],
  ['too large', { name: 'T' }, 'x'.repeat(16 * 1024 + 1), /larger than 16384 bytes/],
  ['no text for a variable', { name: 'T' }, '12345678\0', /zero byte/],
  ['badly named', { name: 'A B' }, VALUE, /name a secret with letters/],
])('a value that is %s is refused, and not repeated', (_what, place, value, message) => {
  const { store } = fresh();
  expect(() => store.set(place, value)).toThrow(message);
  expect(() => store.set(place, value)).not.toThrow(value);
});

describe('what was altered', () => {
  const alter = (sql: string) => {
    const { dir, store } = fresh();
    store.set({ name: 'A' }, 'the value of A');
    store.set({ name: 'B', server: 's' }, 'the value of B');
    const db = new DatabaseSync(join(dir, 'secrets.db'));
    db.exec(sql);
    db.close();
    return store;
  };

  test.each([
    [
      'a row in the place of another',
      "UPDATE secret SET (box, key, revision) = (SELECT box, key, revision FROM secret WHERE name = 'B') WHERE name = 'A'",
    ],
    ['one for a server made one for all', "UPDATE OR REPLACE secret SET name = 'A', server = '' WHERE name = 'B'"],
    ['an older value with a newer revision', "UPDATE secret SET revision = 'x' WHERE name = 'A'"],
    ['one bit', "UPDATE secret SET box = zeroblob(40) WHERE name = 'A'"],
    ['another key', "UPDATE secret SET key = 'x' WHERE name = 'A'"],
  ])('%s does not open', (_what, sql) => {
    const store = alter(sql);
    expect(() => store.find('A', 's', undefined)).toThrow(expect.objectContaining({ code: 'secrets_unusable' }));
  });

  test('a key that is gone, damaged or open to others is told, with what to do', () => {
    const { dir, store } = fresh();
    store.set({ name: 'A' }, VALUE);
    const key = join(dir, 'secrets.key');
    chmodSync(key, 0o644);
    expect(() => store.find('A', 's', undefined)).toThrow(/chmod 600/);
    chmodSync(key, 0o600);
    writeFileSync(key, '{}');
    expect(() => store.find('A', 's', undefined)).toThrow(/secrets\.key in the state folder is damaged: restore it/);
    rmSync(key);
    for (const use of [
      () => store.find('A', 's', undefined),
      () => store.set({ name: 'B' }, VALUE),
      () => store.rotate(),
    ])
      expect(use).toThrow(/secrets\.key in the state folder is gone/);
  });

  test('a file that is none, or of a newer form, is left as it is', () => {
    const { dir, store } = fresh();
    writeFileSync(join(dir, 'secrets.db'), 'this is no database, and long enough to be looked at as one'.repeat(20));
    expect(() => store.list()).toThrow(/secrets\.db in the state folder is damaged/);
    const other = fresh();
    other.store.set({ name: 'A' }, VALUE);
    other.store.close();
    const db = new DatabaseSync(join(other.dir, 'secrets.db'));
    db.exec('PRAGMA user_version = 99');
    db.close();
    expect(() => other.store.list()).toThrow(/newer Moorage/);
  });
});

describe('a change of the key', () => {
  test('seals everything anew, and the old key opens nothing', () => {
    const { dir, store } = fresh();
    store.set({ name: 'A' }, VALUE);
    store.set({ name: 'B', principal: 'p' }, VALUE);
    const [key, old] = [join(dir, 'secrets.key'), join(dir, 'old.key')];
    copyFileSync(key, old);
    const revision = store.find('A', 's', undefined)?.revision;
    expect(store.rotate()).toBe(2);
    expect(store.find('B', 's', 'p')?.value).toBe(VALUE);
    // The value is the same: nothing that runs with it is out of date.
    expect(store.find('A', 's', undefined)?.revision).toBe(revision);
    expect(Object.keys((JSON.parse(readFileSync(key, 'utf8')) as { keys: object }).keys)).toHaveLength(1);
    copyFileSync(old, key);
    expect(() => store.find('A', 's', undefined)).toThrow(/sealed with another key/);
    expect(fresh().store.rotate()).toBe(0);
  });

  test('that a crash cut short leaves values that open, and can be done again', () => {
    const { dir, store } = fresh();
    store.set({ name: 'A' }, VALUE);
    const key = join(dir, 'secrets.key');
    // As it is after the first step: both keys, everything sealed with the old one.
    const before = JSON.parse(readFileSync(key, 'utf8')) as { current: string; keys: Record<string, string> };
    const both = { current: 'new', keys: { ...before.keys, new: Buffer.alloc(32, 7).toString('base64') } };
    writeFileSync(key, JSON.stringify(both), { mode: 0o600 });
    expect(store.find('A', 's', undefined)?.value).toBe(VALUE);
    expect(store.rotate()).toBe(1);
    expect(store.find('A', 's', undefined)?.value).toBe(VALUE);
  });
});

test('a key of systemd is used instead of a file, and is not changed', () => {
  const { dir } = fresh();
  const credentials = join(dir, 'credentials');
  mkdirSync(credentials);
  writeFileSync(join(credentials, 'moorage-secrets-key'), `${Buffer.alloc(32, 9).toString('base64')}\n`);
  const store = new SecretStore(dir, { credentials });
  store.set({ name: 'A' }, VALUE);
  expect(existsSync(join(dir, 'secrets.key'))).toBe(false);
  expect(store.find('A', 's', undefined)?.value).toBe(VALUE);
  expect(() => store.rotate()).toThrow(/systemd credential/);
  expect(() => new SecretStore(dir, { credentials: undefined }).find('A', 's', undefined)).toThrow(/is gone/);
});
