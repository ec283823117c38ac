/**
 * Owns the audit on disk, and how much of it there can be.
 *
 * - `record(n INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER, kind TEXT, text TEXT, hash TEXT)`: see `shared/audit.ts`.
 * - `anchor(one INTEGER PRIMARY KEY, hash TEXT)`: the hash of the last record that was removed for its age.
 * - `repeat(key TEXT PRIMARY KEY, text TEXT, count INTEGER, since INTEGER)`: what was denied again within a minute of its
 *   record, counted instead of written.
 * - `seen(credential TEXT PRIMARY KEY, at INTEGER)`: when a credential's use was last written down.
 *
 * Invariants: records are only ever added at one end and, too old or too many, removed at the other; whoever makes the edge
 * deny adds a record a minute for each way of being denied, and `MAX_REPEATS` in all.
 */
import { type AuditEntry, type AuditPage, type AuditRecord, chained } from '../../shared/audit.ts';
import type { Sql } from '../session/sql.ts';

export const REPEAT_MS = 60_000;
const MAX_REPEATS = 1000;
export const MAX_RECORDS = 200_000;
const LOGIN_MS = 24 * 60 * 60 * 1000;
const MAX_SEEN = 20_000;
const MAX_TEXT = 4096;
const PAGE = 500;

export class Ledger {
  readonly #sql: Sql;
  /** Appends, one after the other: each needs the hash before it. */
  #tail: Promise<void> = Promise.resolve();

  constructor(sql: Sql) {
    this.#sql = sql;
    for (const table of [
      'record (n INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, hash TEXT NOT NULL)',
      'anchor (one INTEGER PRIMARY KEY CHECK (one = 1), hash TEXT NOT NULL)',
      'repeat (key TEXT PRIMARY KEY, text TEXT NOT NULL, count INTEGER NOT NULL, since INTEGER NOT NULL)',
      'seen (credential TEXT PRIMARY KEY, at INTEGER NOT NULL)',
    ]) {
      sql.exec(`CREATE TABLE IF NOT EXISTS ${table}`);
    }
  }

  /** Writes a record down. What was denied in the same way within a minute is counted; a credential logs in once a day. */
  async add(record: AuditRecord): Promise<void> {
    if (record.kind === 'denied' && this.#isRepeat(record)) return;
    if (record.kind === 'login' && record.credential !== undefined && this.#isKnown(record)) return;
    await this.#append(record);
  }

  /** Writes down what was counted, once its minute is over. @returns whether anything is still being counted. */
  async settle(now: number): Promise<boolean> {
    const over = this.#sql
      .exec<{ key: string; text: string; count: number }>(
        'SELECT key, text, count FROM repeat WHERE since <= ?',
        now - REPEAT_MS,
      )
      .toArray();
    for (const { key, text, count } of over) {
      this.#sql.exec('DELETE FROM repeat WHERE key = ?', key);
      if (count > 0) await this.#append({ ...(JSON.parse(text) as AuditRecord), at: now, count });
    }
    return this.#sql.exec<{ n: number }>('SELECT COUNT(*) AS n FROM repeat').one().n > 0;
  }

  /** Removes what is older than `before`, and what is too much. */
  prune(before: number): void {
    const { last } = this.#sql.exec<{ last: number | null }>('SELECT MAX(n) AS last FROM record').one();
    const [end] = this.#sql
      .exec<{ n: number; hash: string }>(
        'SELECT n, hash FROM record WHERE at < ? OR n <= ? ORDER BY n DESC LIMIT 1',
        before,
        (last ?? 0) - MAX_RECORDS,
      )
      .toArray();
    if (!end) return;
    this.#sql.exec('INSERT OR REPLACE INTO anchor (one, hash) VALUES (1, ?)', end.hash);
    this.#sql.exec('DELETE FROM record WHERE n <= ?', end.n);
  }

  /** Records after number `after`, not older than `since`. */
  page(after: number, since: number): AuditPage {
    const entries = this.#sql
      .exec<AuditEntry & Record<string, string | number>>(
        'SELECT n, text, hash FROM record WHERE n > ? AND at >= ? ORDER BY n LIMIT ?',
        after,
        since,
        PAGE,
      )
      .toArray()
      .map(({ n, text, hash }) => ({ n, text, hash }));
    const [first] = entries;
    const before = first ? this.#hashBefore(first.n) : '';
    return { before, entries, next: entries.length < PAGE ? null : (entries.at(-1)?.n ?? null) };
  }

  #append(record: AuditRecord): Promise<void> {
    const append = async () => {
      const text = textOf(record);
      const hash = await chained(this.#hashBefore(Number.MAX_SAFE_INTEGER), text);
      this.#sql.exec(
        'INSERT INTO record (at, kind, text, hash) VALUES (?, ?, ?, ?)',
        record.at,
        record.kind,
        text,
        hash,
      );
    };
    this.#tail = this.#tail.then(append, append);
    return this.#tail;
  }

  #hashBefore(n: number): string {
    const [row] = this.#sql
      .exec<{ hash: string }>('SELECT hash FROM record WHERE n < ? ORDER BY n DESC LIMIT 1', n)
      .toArray();
    return row?.hash ?? this.#sql.exec<{ hash: string }>('SELECT hash FROM anchor').toArray()[0]?.hash ?? '';
  }

  #isRepeat(record: AuditRecord): boolean {
    const { action, subject = '', server = '', address = '' } = record;
    const key = JSON.stringify([action, subject, server.slice(0, 63), address]);
    const count = (of: string) => this.#sql.exec('UPDATE repeat SET count = count + 1 WHERE key = ?', of);
    const isCounted = (of: string) =>
      this.#sql.exec('SELECT 1 AS one FROM repeat WHERE key = ?', of).toArray().length > 0;
    if (isCounted(key)) {
      count(key);
      return true;
    }
    const { n } = this.#sql.exec<{ n: number }>('SELECT COUNT(*) AS n FROM repeat').one();
    // Beyond the bound all are counted as one, whose own first record stands for them.
    const other = n >= MAX_REPEATS;
    const kept = other ? 'others' : key;
    if (other && isCounted(kept)) {
      count(kept);
      return true;
    }
    const text = other ? textOf({ at: record.at, kind: 'denied', action: 'many different' }) : textOf(record);
    this.#sql.exec('INSERT INTO repeat (key, text, count, since) VALUES (?, ?, 0, ?)', kept, text, record.at);
    return false;
  }

  #isKnown({ credential = '', at }: AuditRecord): boolean {
    const [row] = this.#sql.exec<{ at: number }>('SELECT at FROM seen WHERE credential = ?', credential).toArray();
    if (row && at - row.at < LOGIN_MS) return true;
    const { n } = this.#sql.exec<{ n: number }>('SELECT COUNT(*) AS n FROM seen').one();
    if (n >= MAX_SEEN) this.#sql.exec('DELETE FROM seen WHERE at < ?', at - LOGIN_MS);
    this.#sql.exec('INSERT OR REPLACE INTO seen (credential, at) VALUES (?, ?)', credential, at);
    return false;
  }
}

/** A record that would be too long loses its detail: who did what is what counts. */
function textOf(record: AuditRecord): string {
  const text = JSON.stringify(record);
  if (text.length <= MAX_TEXT || record.kind === 'call') return text;
  return JSON.stringify({ ...record, detail: { cut: true } });
}
