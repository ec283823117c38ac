/** Owns what the modules of a session's storage use of a Durable Object's, so that they run on any SQLite. */

export type SqlValue = string | number | null | ArrayBuffer;

export interface Sql {
  exec<Row extends Record<string, SqlValue>>(text: string, ...values: SqlValue[]): { toArray(): Row[]; one(): Row };
}

export interface ObjectStorage {
  readonly sql: Sql;
  deleteAlarm(): Promise<void>;
  deleteAll(): Promise<void>;
}
