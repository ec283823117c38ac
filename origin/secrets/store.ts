/**
 * Owns the origin's secrets at rest: `secrets.db` of the state folder (SQLite, 0600), values sealed by `key.ts`.
 *
 * Table `secret(name, server, principal, revision, changed_at, key, box, PRIMARY KEY (name, server, principal))`: `server`
 * and `principal` (a subject) are '' where it is for all of them; `revision` is random and new with every value, so that
 * it names the value without telling it; `changed_at` is in milliseconds. The form is `user_version`, raised by MIGRATIONS.
 *
 * Nothing is kept in memory: the command line and a running router use the same file. Neither file is made before
 * the first secret is set.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { secretName } from '../../shared/config/secrets.ts';
import { MoorageError } from '../../shared/errors.ts';
import {
  credentialsFolder,
  type KeyRing,
  loadKeys,
  seal,
  storeKeys,
  unseal,
  unusable,
  withFreshKey,
  withoutOldKeys,
} from './key.ts';

/** Whose a secret is: of one server or of all, of one principal or of all. */
export interface SecretPlace {
  readonly name: string;
  readonly server?: string | undefined;
  readonly principal?: string | undefined;
}

export interface StoredSecret extends SecretPlace {
  readonly changedAt: number;
}

export interface SecretValue {
  readonly value: string;
  readonly revision: string;
}

/** Shorter values cannot be told from ordinary words in what a server prints. */
export const MIN_SECRET_LENGTH = 8;
export const MAX_SECRET_BYTES = 16 * 1024;
const FILE = 'secrets.db';

const MIGRATIONS = [
  `CREATE TABLE secret (
    name TEXT NOT NULL, server TEXT NOT NULL, principal TEXT NOT NULL, revision TEXT NOT NULL,
    changed_at INTEGER NOT NULL, key TEXT NOT NULL, box BLOB NOT NULL,
    PRIMARY KEY (name, server, principal)) WITHOUT ROWID;`,
];

/** A row of our own table: what SQLite returns is cast to it. */
type Row = {
  readonly name: string;
  readonly server: string;
  readonly principal: string;
  readonly revision: string;
  readonly changed_at: number;
  readonly key: string;
  readonly box: Uint8Array;
};

const boundTo = ({ name, server, principal, revision }: Pick<Row, 'name' | 'server' | 'principal' | 'revision'>) => [
  name,
  server,
  principal,
  revision,
];

export class SecretStore {
  readonly #dir: string;
  readonly #now: () => number;
  readonly #credentials: string | undefined;
  #opened: DatabaseSync | undefined;

  constructor(dir: string, options: { now?: () => number; credentials?: string | undefined } = {}) {
    this.#dir = dir;
    this.#now = options.now ?? Date.now;
    this.#credentials = 'credentials' in options ? options.credentials : credentialsFolder();
  }

  /** All secrets without their values, by name. */
  list(): StoredSecret[] {
    const rows = this.#db()?.prepare('SELECT * FROM secret ORDER BY name, server, principal').all() ?? [];
    return (rows as Row[]).map(({ name, server, principal, changed_at }) => ({
      name,
      ...(server === '' ? {} : { server }),
      ...(principal === '' ? {} : { principal }),
      changedAt: changed_at,
    }));
  }

  /** @throws MoorageError `invalid_params` for a value that cannot be one, `secrets_unusable`. */
  set({ name, server = '', principal = '' }: SecretPlace, value: string): void {
    check(name, value);
    const db = this.#made();
    let ring = loadKeys(this.#dir, this.#credentials);
    if (ring === undefined) {
      if (this.list().length > 0) throw missingKey();
      ring = withFreshKey(undefined);
      storeKeys(this.#dir, ring);
    }
    const row = { name, server, principal, revision: randomBytes(12).toString('base64url') };
    const { key, box } = seal(ring, value, boundTo(row));
    db.prepare('INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, ?, ?, ?)').run(
      name,
      server,
      principal,
      row.revision,
      this.#now(),
      key,
      box,
    );
  }

  /** @returns whether there was one. */
  remove({ name, server = '', principal = '' }: SecretPlace): boolean {
    const done = this.#db()
      ?.prepare('DELETE FROM secret WHERE name = ? AND server = ? AND principal = ?')
      .run(name, server, principal);
    return done !== undefined && done.changes > 0;
  }

  /**
   * What a server gets for a principal: one set for the principal before one set for all, then one set for the server
   * before one set for all of them. Where nothing is set for a fork itself, it gets what is set for its `original`.
   * @throws MoorageError `secrets_unusable`.
   */
  find(name: string, server: string, principal: string | undefined, original = server): SecretValue | undefined {
    const sql = `SELECT * FROM secret WHERE name = ? AND server IN (?, ?, '') AND principal IN (?, '')
      ORDER BY principal = '', server = '', server <> ? LIMIT 1`;
    const row = this.#db()
      ?.prepare(sql)
      .get(name, server, original, principal ?? '', server) as Row | undefined;
    return row && { value: unseal(this.#ring(), row, boundTo(row)), revision: row.revision };
  }

  /**
   * Seals everything with a fresh key and forgets the old one. A crash at any step leaves values that open: the file holds
   * both keys until all are sealed with the new one. @returns how many were sealed.
   */
  rotate(): number {
    const db = this.#db();
    if (db === undefined) return 0;
    const old = this.#ring();
    if (!old.isOurs)
      throw unusable(
        'their key comes from a systemd credential, which is not ours to change: make a new one, and set them again',
      );
    const ring = withFreshKey(old);
    storeKeys(this.#dir, ring);
    db.exec('BEGIN IMMEDIATE');
    try {
      const rows = db.prepare('SELECT * FROM secret').all() as Row[];
      const update = db.prepare('UPDATE secret SET key = ?, box = ? WHERE name = ? AND server = ? AND principal = ?');
      for (const row of rows) {
        const { key, box } = seal(ring, unseal(ring, row, boundTo(row)), boundTo(row));
        update.run(key, box, row.name, row.server, row.principal);
      }
      db.exec('COMMIT');
      storeKeys(this.#dir, withoutOldKeys(ring));
      return rows.length;
    } catch (error) {
      db.exec('ROLLBACK');
      throw error;
    }
  }

  close(): void {
    this.#opened?.close();
    this.#opened = undefined;
  }

  #ring(): KeyRing {
    const ring = loadKeys(this.#dir, this.#credentials);
    if (ring === undefined) throw missingKey();
    return ring;
  }

  #db(): DatabaseSync | undefined {
    return this.#opened ?? (existsSync(join(this.#dir, FILE)) ? this.#made() : undefined);
  }

  #made(): DatabaseSync {
    if (this.#opened !== undefined) return this.#opened;
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
    const path = join(this.#dir, FILE);
    let db: DatabaseSync | undefined;
    try {
      db = new DatabaseSync(path, { timeout: 5_000 });
      chmodSync(path, 0o600);
      db.exec('PRAGMA secure_delete = ON; PRAGMA synchronous = FULL;');
      migrate(db);
    } catch (error) {
      db?.close();
      if (error instanceof MoorageError) throw error;
      throw unusable('secrets.db in the state folder is damaged: restore it, or remove it and set them again');
    }
    this.#opened = db;
    return db;
  }
}

/** Two processes may open a new file at once: the second finds the work done. */
function migrate(db: DatabaseSync): void {
  db.exec('BEGIN IMMEDIATE');
  try {
    const { user_version: form } = db.prepare('PRAGMA user_version').get() as { user_version: number };
    if (form > MIGRATIONS.length) throw unusable('secrets.db was written by a newer Moorage: use that one');
    for (const step of MIGRATIONS.slice(form)) db.exec(step);
    db.exec(`PRAGMA user_version = ${MIGRATIONS.length}; COMMIT`);
  } catch (error) {
    db.exec('ROLLBACK');
    throw error;
  }
}

function check(name: string, value: string): void {
  const named = secretName.safeParse(name);
  if (!named.success) throw new MoorageError('invalid_params', `"${name}": ${named.error.issues[0]?.message}.`);
  if (value.length < MIN_SECRET_LENGTH)
    throw new MoorageError(
      'invalid_params',
      `The value of ${name} is shorter than ${MIN_SECRET_LENGTH} characters: it could not be told from ordinary words in what a server prints, and so not be kept out of it. Where it is no secret, put it into "env".`,
    );
  if (Buffer.byteLength(value) > MAX_SECRET_BYTES)
    throw new MoorageError('invalid_params', `The value of ${name} is larger than ${MAX_SECRET_BYTES} bytes.`);
  if (value.includes('\0'))
    throw new MoorageError('invalid_params', `The value of ${name} holds a zero byte, which no variable can.`);
}

const missingKey = (): MoorageError =>
  unusable('secrets.key in the state folder is gone: restore it, or remove secrets.db and set them again');
