/**
 * Owns the bearer tokens on disk.
 *
 * - `token(id TEXT PRIMARY KEY, digest BLOB, name TEXT, subject TEXT, scopes TEXT, groups TEXT, created INTEGER,
 *   createdBy TEXT, expires INTEGER, revoked INTEGER, used INTEGER)`: `digest` is the token's SHA-256, lists are JSON, times
 *   are Unix milliseconds, null where they are not.
 *
 * Invariants: no token can be made out of what is here; a name is borne by one living token; what ended is kept for a
 * month, to be listed, and a revoked token never lives again.
 */
import { MoorageError } from '../../../shared/errors.ts';
import type { ListedToken, NewToken } from '../../../shared/tokens.ts';
import type { Sql } from '../../session/sql.ts';

const MAX_LIVING = 10_000;
const KEEP_ENDED_MS = 30 * 24 * 60 * 60 * 1000;
/** The time of last use goes to disk at most this often. */
const TOUCH_MS = 60 * 60 * 1000;

type Row = {
  id: string;
  digest: ArrayBuffer;
  name: string;
  subject: string;
  scopes: string;
  groups: string;
  created: number;
  createdBy: string;
  expires: number | null;
  revoked: number | null;
  used: number | null;
};

export class TokenBook {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
    sql.exec(
      `CREATE TABLE IF NOT EXISTS token (
         id TEXT PRIMARY KEY, digest BLOB NOT NULL, name TEXT NOT NULL, subject TEXT NOT NULL, scopes TEXT NOT NULL,
         groups TEXT NOT NULL, created INTEGER NOT NULL, createdBy TEXT NOT NULL, expires INTEGER, revoked INTEGER,
         used INTEGER)`,
    );
  }

  /** @throws MoorageError `invalid_params` for a name that is taken, `overloaded`. */
  create(id: string, digest: ArrayBuffer, wish: NewToken, createdBy: string, now: number): void {
    this.#sql.exec('DELETE FROM token WHERE COALESCE(revoked, expires) < ?', now - KEEP_ENDED_MS);
    const living = this.list().filter((token) => isLiving(token, now));
    if (living.some(({ name }) => name === wish.name)) {
      throw new MoorageError(
        'invalid_params',
        `There is a token named "${wish.name}". Revoke it, or name this one otherwise.`,
      );
    }
    if (living.length >= MAX_LIVING) {
      throw new MoorageError('overloaded', `There are ${MAX_LIVING} tokens already. Revoke some first.`);
    }
    this.#sql.exec(
      `INSERT INTO token (id, digest, name, subject, scopes, groups, created, createdBy, expires)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      id,
      digest,
      wish.name,
      wish.subject,
      JSON.stringify(wish.scopes),
      JSON.stringify(wish.groups),
      now,
      createdBy,
      wish.expiresAt,
    );
  }

  /** The living token of this id whose digest `same` finds to be the same. */
  find(id: string, same: (digest: ArrayBuffer) => boolean, now: number): ListedToken | null {
    const [row] = this.#sql.exec<Row>('SELECT * FROM token WHERE id = ?', id).toArray();
    if (!row || !same(row.digest)) return null;
    const token = listed(row);
    if (!isLiving(token, now)) return null;
    if (now - (row.used ?? 0) >= TOUCH_MS) this.#sql.exec('UPDATE token SET used = ? WHERE id = ?', now, id);
    return token;
  }

  isLiving(id: string, now: number): boolean {
    const [row] = this.#sql.exec<Row>('SELECT * FROM token WHERE id = ?', id).toArray();
    return row !== undefined && isLiving(listed(row), now);
  }

  /** Newest first. */
  list(): ListedToken[] {
    return this.#sql.exec<Row>('SELECT * FROM token ORDER BY created DESC, id').toArray().map(listed);
  }

  /** Revokes the living token of this id or name. @returns it, or null when there is none. */
  revoke(idOrName: string, now: number): ListedToken | null {
    const found = this.list().find(
      (token) => (token.id === idOrName || token.name === idOrName) && isLiving(token, now),
    );
    if (!found) return null;
    this.#sql.exec('UPDATE token SET revoked = ? WHERE id = ?', now, found.id);
    return { ...found, revokedAt: now };
  }
}

const isLiving = ({ revokedAt, expiresAt }: ListedToken, now: number): boolean =>
  revokedAt === null && (expiresAt === null || expiresAt > now);

const listed = (row: Row): ListedToken => ({
  id: row.id,
  name: row.name,
  subject: row.subject,
  scopes: JSON.parse(row.scopes) as string[],
  groups: JSON.parse(row.groups) as string[],
  createdAt: row.created,
  createdBy: row.createdBy,
  expiresAt: row.expires,
  revokedAt: row.revoked,
  usedAt: row.used,
});
