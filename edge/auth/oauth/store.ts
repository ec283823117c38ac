/**
 * Owns what the authorization server remembers, in a SQLite database, with the interface of Workers KV that its library asks
 * for, and the one-time codes by which the owner lets people in.
 *
 * - `entry(key TEXT PRIMARY KEY, value TEXT, expires_at INTEGER)`: clients, grants (encrypted by the library with the tokens
 *   themselves) and hashes of tokens; `ended:<login>` of logins that ended lately. `expires_at` in milliseconds, or null.
 * - `code(hash TEXT PRIMARY KEY, name TEXT, groups TEXT, expires_at INTEGER)`: `hash` is SHA-256 of a code, hexadecimal.
 *
 * Invariants: what is past its time is not there; a login that ended takes its tokens along and does not come back, though a
 * request that refreshes it be under way; a code is used once. It has 58 random bits, so that guesses need not be counted: a
 * count would let strangers lock out whoever has a good one.
 */
import type { Sql } from '../../session/sql.ts';

export interface KnownPerson {
  readonly name: string;
  readonly groups: readonly string[];
}

export interface ListedEntries {
  readonly keys: readonly { readonly name: string }[];
  readonly list_complete: boolean;
  readonly cursor?: string;
}

/** Entries that the store holds at most: dynamic registration is open to everybody. */
const MAX_ENTRIES = 100_000;
const MAX_CODES = 100;
/** No request takes so long, in milliseconds. */
const REMEMBER_ENDED_MS = 60 * 60 * 1000;
const GRANT_KEY = /^grant:([^:]+:[^:]+)$/;
/** What is of a login: its grant, and its tokens. */
const LOGIN_KEY = /^(?:grant|token):([^:]+:[^:]+)(?::|$)/;

/** What became of an entry that was to be kept: nothing, if its login has ended meanwhile or the store is full. */
export type Kept = 'kept' | 'ended' | 'full';

export class OAuthEntries {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
    sql.exec('CREATE TABLE IF NOT EXISTS entry (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires_at INTEGER)');
    sql.exec('CREATE INDEX IF NOT EXISTS entry_expiry ON entry (expires_at) WHERE expires_at IS NOT NULL');
    sql.exec(
      'CREATE TABLE IF NOT EXISTS code (hash TEXT PRIMARY KEY, name TEXT NOT NULL, groups TEXT NOT NULL, expires_at INTEGER NOT NULL)',
    );
  }

  get(key: string, now: number): string | null {
    const [row] = this.#sql
      .exec<{ value: string }>(
        'SELECT value FROM entry WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)',
        key,
        now,
      )
      .toArray();
    return row?.value ?? null;
  }

  /** When an entry's time is over; null: never. Undefined: it is not there. */
  endOf(key: string, now: number): number | null | undefined {
    const [row] = this.#sql
      .exec<{ expires_at: number | null }>(
        'SELECT expires_at FROM entry WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)',
        key,
        now,
      )
      .toArray();
    return row?.expires_at;
  }

  put(key: string, value: string, expiresAt: number | null, now: number): Kept {
    const [, login] = LOGIN_KEY.exec(key) ?? [];
    if (login !== undefined && this.get(`ended:${login}`, now) !== null) return 'ended';
    this.#sql.exec('DELETE FROM entry WHERE expires_at <= ?', now);
    const [{ n } = { n: 0 }] = this.#sql.exec<{ n: number }>('SELECT count(*) AS n FROM entry').toArray();
    if (n >= MAX_ENTRIES && this.get(key, now) === null) return 'full';
    this.#write(key, value, expiresAt);
    return 'kept';
  }

  delete(key: string, now: number): void {
    this.#sql.exec('DELETE FROM entry WHERE key = ?', key);
    const [, login] = GRANT_KEY.exec(key) ?? [];
    if (login === undefined) return;
    const tokens = `token:${login}:`;
    this.#sql.exec('DELETE FROM entry WHERE substr(key, 1, ?) = ?', tokens.length, tokens);
    this.#write(`ended:${login}`, '', now + REMEMBER_ENDED_MS);
  }

  #write(key: string, value: string, expiresAt: number | null): void {
    this.#sql.exec('INSERT OR REPLACE INTO entry (key, value, expires_at) VALUES (?, ?, ?)', key, value, expiresAt);
  }

  /** Keys in their order, after `cursor`, which is the last key of the page before. */
  list(prefix: string, limit: number, cursor: string, now: number): ListedEntries {
    const rows = this.#sql
      .exec<{ key: string }>(
        `SELECT key FROM entry WHERE substr(key, 1, ?) = ? AND key > ? AND (expires_at IS NULL OR expires_at > ?)
         ORDER BY key LIMIT ?`,
        prefix.length,
        prefix,
        cursor,
        now,
        limit + 1,
      )
      .toArray();
    const keys = rows.slice(0, limit).map(({ key }) => ({ name: key }));
    const last = keys.at(-1);
    return rows.length > limit && last
      ? { keys, list_complete: false, cursor: last.name }
      : { keys, list_complete: true };
  }

  /** Keeps a code. The oldest makes room. */
  addCode(hash: string, { name, groups }: KnownPerson, expiresAt: number): void {
    this.#sql.exec(
      'INSERT OR REPLACE INTO code (hash, name, groups, expires_at) VALUES (?, ?, ?, ?)',
      hash,
      name,
      JSON.stringify(groups),
      expiresAt,
    );
    this.#sql.exec(
      'DELETE FROM code WHERE hash NOT IN (SELECT hash FROM code ORDER BY expires_at DESC LIMIT ?)',
      MAX_CODES,
    );
  }

  /** Takes a code: whom it lets in, or null for one that never was, was used or is too old. */
  takeCode(hash: string, now: number): KnownPerson | null {
    const [row] = this.#sql
      .exec<{ name: string; groups: string }>(
        'DELETE FROM code WHERE hash = ? AND expires_at > ? RETURNING name, groups',
        hash,
        now,
      )
      .toArray();
    return row ? { name: row.name, groups: JSON.parse(row.groups) as string[] } : null;
  }
}
