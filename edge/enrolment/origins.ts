/**
 * Owns which origins were invited and which are enrolled, in the Directory's database.
 *
 * - `invitation(id TEXT PRIMARY KEY, hash TEXT, url TEXT, expires_at INTEGER)`: `hash` is SHA-256 of the code's secret,
 *   hexadecimal; a second invitation of an origin replaces the first.
 * - `enrolled(id TEXT PRIMARY KEY, key TEXT, url TEXT, since INTEGER)`: `key` is the origin's public JWK, `since` when it was
 *   enrolled, in milliseconds.
 *
 * Invariants: an invitation is used once, and the use and the pinning are one step; where an origin is reached is what its
 * inviter said, never what the origin says.
 */
import type { PublicKey } from '../../shared/enrolment.ts';

export interface Enrolled {
  readonly id: string;
  readonly key: PublicKey;
  readonly url: string;
  readonly since: number;
}

export interface Invited {
  readonly id: string;
  readonly url: string;
  readonly expiresAt: number;
}

export class EnrolledOrigins {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    sql.exec(
      `CREATE TABLE IF NOT EXISTS invitation (
         id TEXT PRIMARY KEY, hash TEXT NOT NULL, url TEXT NOT NULL, expires_at INTEGER NOT NULL)`,
    );
    sql.exec(
      `CREATE TABLE IF NOT EXISTS enrolled (
         id TEXT PRIMARY KEY, key TEXT NOT NULL, url TEXT NOT NULL, since INTEGER NOT NULL)`,
    );
  }

  invite({ id, url, expiresAt }: Invited, hash: string): void {
    this.#sql.exec(
      'INSERT OR REPLACE INTO invitation (id, hash, url, expires_at) VALUES (?, ?, ?, ?)',
      id,
      hash,
      url,
      expiresAt,
    );
  }

  /** Pins an origin's key by the hash of a code's secret. False for a code that is unknown, used or too old. */
  enrol(id: string, hash: string, key: PublicKey, now: number): boolean {
    const used = this.#sql
      .exec<{ url: string }>(
        'DELETE FROM invitation WHERE id = ? AND hash = ? AND expires_at > ? RETURNING url',
        id,
        hash,
        now,
      )
      .toArray();
    const [invitation] = used;
    if (!invitation) return false;
    this.#sql.exec(
      'INSERT OR REPLACE INTO enrolled (id, key, url, since) VALUES (?, ?, ?, ?)',
      id,
      JSON.stringify(key),
      invitation.url,
      now,
    );
    return true;
  }

  /** Pins another key in the place of `old`. False when `old` is not pinned (any more). */
  rotate(id: string, old: PublicKey, key: PublicKey): boolean {
    const known = this.find(id);
    if (known?.key.x !== old.x) return false;
    this.#sql.exec('UPDATE enrolled SET key = ? WHERE id = ?', JSON.stringify(key), id);
    return true;
  }

  /** Forgets an origin and its invitation. False when there was neither. */
  revoke(id: string): boolean {
    const gone = ['invitation', 'enrolled'].map(
      (table) => this.#sql.exec(`DELETE FROM ${table} WHERE id = ?`, id).rowsWritten,
    );
    return gone.some((rows) => rows > 0);
  }

  find(id: string): Enrolled | undefined {
    return this.list().find((origin) => origin.id === id);
  }

  list(): Enrolled[] {
    return this.#sql
      .exec<{ id: string; key: string; url: string; since: number }>(
        'SELECT id, key, url, since FROM enrolled ORDER BY id',
      )
      .toArray()
      .map((row) => ({ ...row, key: JSON.parse(row.key) as PublicKey }));
  }

  /** Invitations that can still be used. */
  invited(now: number): Invited[] {
    this.#sql.exec('DELETE FROM invitation WHERE expires_at <= ?', now);
    return this.#sql
      .exec<{ id: string; url: string; expires_at: number }>('SELECT id, url, expires_at FROM invitation ORDER BY id')
      .toArray()
      .map(({ id, url, expires_at }) => ({ id, url, expiresAt: expires_at }));
  }
}
