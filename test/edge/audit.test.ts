/** The audit's ledger, on SQLite as Durable Objects have it: what is kept, how much of it, and how a change of it shows. */
import { DatabaseSync } from 'node:sqlite';
import { beforeEach, expect, test } from 'vitest';
import { Ledger, REPEAT_MS } from '../../edge/audit/ledger.ts';
import type { SqlValue } from '../../edge/session/sql.ts';
import { type AuditRecord, brokenAt } from '../../shared/audit.ts';

let database: DatabaseSync;
let ledger: Ledger;
beforeEach(() => {
  database = new DatabaseSync(':memory:');
  ledger = new Ledger({
    exec<Row>(query: string, ...bindings: SqlValue[]) {
      const rows = database.prepare(query).all(...(bindings as (string | number | null)[])) as Row[];
      return { toArray: () => rows, one: () => rows[0] as Row };
    },
  });
});

const act = (at: number, rest: Partial<AuditRecord> = {}): AuditRecord => ({
  at,
  kind: 'admin',
  action: 'POST /x',
  ...rest,
});
const denied = (at: number, rest: Partial<AuditRecord> = {}) =>
  act(at, { kind: 'denied', action: 'forbidden', ...rest });
const kept = () => ledger.page(0, 0).entries.map(({ text }) => JSON.parse(text) as AuditRecord);

test('records stand in the order in which they came, however many come at once', async () => {
  await Promise.all(Array.from({ length: 50 }, (_, n) => ledger.add(act(n))));
  expect(kept().map(({ at }) => at)).toEqual(Array.from({ length: 50 }, (_, n) => n));
  expect(await brokenAt(ledger.page(0, 0))).toBe(null);
});

test.each([
  ['changed', 'UPDATE record SET text = replace(text, \'"at":2\', \'"at":7\') WHERE n = 3', 3],
  ['removed', 'DELETE FROM record WHERE n = 3', 4],
  ['put in the place of another', 'UPDATE record SET n = 99 WHERE n = 3', 4],
])('a record that was %s shows', async (_, tampering, at) => {
  for (let n = 0; n < 5; n++) await ledger.add(act(n));
  database.exec(tampering);
  expect(await brokenAt(ledger.page(0, 0))).toBe(at);
});

test('pages hang together', async () => {
  for (let n = 0; n < 501; n++) await ledger.add(act(n));
  const first = ledger.page(0, 0);
  const second = ledger.page(first.next ?? 0, 0);
  expect([first.entries.length, second.entries.length, second.next]).toEqual([500, 1, null]);
  expect(second.before).toBe(first.entries.at(-1)?.hash);
  expect(await brokenAt(second)).toBe(null);
});

test('what is denied again and again is counted, and told when its minute is over', async () => {
  for (let n = 0; n < 1000; n++) await ledger.add(denied(n));
  expect(kept()).toHaveLength(1);
  expect(await ledger.settle(REPEAT_MS - 1)).toBe(true);
  expect(kept()).toHaveLength(1);
  expect(await ledger.settle(REPEAT_MS)).toBe(false);
  expect(kept().map(({ count }) => count)).toEqual([undefined, 999]);
  await ledger.add(denied(REPEAT_MS + 1));
  expect(kept()).toHaveLength(3);
});

test('who is denied in ever new ways cannot fill the disk', async () => {
  for (let n = 0; n < 3000; n++) await ledger.add(denied(n, { server: `made-up-${n}` }));
  const { n } = database.prepare('SELECT COUNT(*) AS n FROM record').get() as { n: number };
  expect(n).toBe(1001);
  await ledger.settle(2 * REPEAT_MS);
  const others = kept().length === 500 ? ledger.page(1000, 0).entries : [];
  expect(others.map(({ text }) => (JSON.parse(text) as AuditRecord).count)).toEqual([undefined, 1999]);
});

test('a credential logs in once a day', async () => {
  const login = (at: number) => act(at, { kind: 'login', action: 'token', credential: 'token:a' });
  const day = 24 * 60 * 60 * 1000;
  for (const at of [0, 1, day - 1, day]) await ledger.add(login(at));
  expect(kept().map(({ at }) => at)).toEqual([0, day]);
});

test('what is too old goes, and the rest still follows from it', async () => {
  for (let n = 0; n < 10; n++) await ledger.add(act(n));
  ledger.prune(5);
  const page = ledger.page(0, 0);
  expect(page.entries.map(({ n }) => n)).toEqual([6, 7, 8, 9, 10]);
  expect(page.before).not.toBe('');
  expect(await brokenAt(page)).toBe(null);
  ledger.prune(100);
  await ledger.add(act(101));
  expect(await brokenAt(ledger.page(0, 0))).toBe(null);
});

test('a record that is too long loses its detail, never who did what', async () => {
  await ledger.add(act(1, { subject: 'ada', detail: { x: 'x'.repeat(10_000) } }));
  expect(kept()).toEqual([act(1, { subject: 'ada', detail: { cut: true } })]);
});
