/**
 * Owns the pinned definitions of tools, within the Directory's database.
 *
 * - `pin_set(server, deployment, since, complete)`: when a deployment's tools were first listed, in milliseconds, and whether
 *   the last page of a list was seen. The two newest of a server are kept.
 * - `pin(server, deployment, name, accepted_digest, accepted, seen_digest, seen)`: what was accepted of a tool, null where it was
 *   added later; and what was listed last where that is something else. Texts are JSON, null where they are too large to keep.
 *
 *   first list ──▶ accepted ──listed otherwise──▶ changed ──accept, or listed as before──▶ accepted
 *   a name that comes later ──▶ added ──accept──▶ accepted
 *
 * Invariants: nothing is accepted but what a deployment lists first and what its owner accepts; rows and texts are bounded.
 */
import type { Sql } from '../discovery/copies.ts';
import type { Definition } from './definition.ts';

/** Names that come this soon after the first list belong to it: servers register their tools one by one. */
export const FIRST_MS = 60_000;
/** … and while not all pages were seen, this soon. */
export const PAGES_MS = 60 * 60 * 1000;
export const MAX_TOOLS = 2000;
const MAX_TEXT = 256 * 1024;
const KEPT_DEPLOYMENTS = 2;

/** How a tool stands: as accepted, otherwise than accepted, never accepted, never listed; or nothing is pinned of its server. */
export type Standing = 'accepted' | 'changed' | 'added' | 'unlisted' | 'unpinned';

/** What a list showed; `isNew` where nobody had shown it before. */
export type Observed = Difference & { readonly isNew: boolean };

/** A tool that is not as it was accepted. Texts are null where there is none, or it is too large to be kept. */
export interface Difference {
  readonly name: string;
  readonly change: 'changed' | 'added' | 'removed';
  readonly accepted: string | null;
  readonly seen: string | null;
  /** Of what is seen. */
  readonly digest: string | null;
}

export interface PinSet {
  readonly deployment: string;
  /** ISO 8601. */
  readonly since: string;
}

type Row = {
  readonly name: string;
  readonly accepted_digest: string | null;
  readonly accepted: string | null;
  readonly seen_digest: string | null;
  readonly seen: string | null;
};
type SetRow = { readonly deployment: string; readonly since: number; readonly complete: number };

export class Pins {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
    sql.exec(
      `CREATE TABLE IF NOT EXISTS pin_set (
         server TEXT NOT NULL, deployment TEXT NOT NULL, since INTEGER NOT NULL, complete INTEGER NOT NULL,
         PRIMARY KEY (server, deployment))`,
    );
    sql.exec(
      `CREATE TABLE IF NOT EXISTS pin (
         server TEXT NOT NULL, deployment TEXT NOT NULL, name TEXT NOT NULL, accepted_digest TEXT, accepted TEXT,
         seen_digest TEXT, seen TEXT, PRIMARY KEY (server, deployment, name))`,
    );
  }

  /** Takes a page of a list. @returns those of its tools that are not as accepted. */
  observe(server: string, deployment: string, tools: readonly Definition[], isLast: boolean, now: number): Observed[] {
    const set = this.#set(server, deployment) ?? this.#begin(server, deployment, now);
    const isFirst = now < set.since + (set.complete ? FIRST_MS : PAGES_MS);
    if (isLast && !set.complete) {
      this.#sql.exec('UPDATE pin_set SET complete = 1 WHERE server = ? AND deployment = ?', server, deployment);
    }
    return tools.flatMap((tool) => {
      const row = this.#row(server, deployment, tool.name);
      if (row?.accepted_digest === tool.digest) {
        if (row.seen_digest !== null) this.#put(server, deployment, { ...row, seen_digest: null, seen: null });
        return [];
      }
      const { name, digest } = tool;
      const text = tool.text.length > MAX_TEXT ? null : tool.text;
      if (!row && isFirst && this.#count(server, deployment) < MAX_TOOLS) {
        this.#put(server, deployment, { name, accepted_digest: digest, accepted: text, seen_digest: null, seen: null });
        return [];
      }
      const before = row ?? { name, accepted_digest: null, accepted: null };
      const isNew = row?.seen_digest !== digest;
      if (isNew && (row || this.#count(server, deployment) < MAX_TOOLS)) {
        this.#put(server, deployment, { ...before, seen_digest: digest, seen: text });
      }
      const change = before.accepted_digest === null ? 'added' : 'changed';
      return [{ name, change, accepted: before.accepted, seen: text, digest, isNew } as const];
    });
  }

  standing(server: string, deployment: string, name: string): Standing {
    if (!this.#set(server, deployment)) return 'unpinned';
    const row = this.#row(server, deployment, name);
    if (!row) return 'unlisted';
    if (row.accepted_digest === null) return 'added';
    return row.seen_digest === null ? 'accepted' : 'changed';
  }

  /** What waits for its owner, and what came with the deployment; null where nothing was listed yet. */
  differences(
    server: string,
    deployment: string,
  ): { readonly set: PinSet; readonly held: Difference[]; readonly deployed: Difference[] } | null {
    const set = this.#set(server, deployment);
    if (!set) return null;
    const rows = this.#rows(server, deployment);
    const held = rows.flatMap((row): Difference[] =>
      row.seen_digest === null
        ? []
        : [
            {
              name: row.name,
              change: row.accepted_digest === null ? 'added' : 'changed',
              accepted: row.accepted,
              seen: row.seen,
              digest: row.seen_digest,
            },
          ],
    );
    return {
      set: { deployment, since: new Date(set.since).toISOString() },
      held,
      deployed: this.#deployed(server, set, rows),
    };
  }

  /** Accepts what is seen of tools, each only where it is still what its owner saw. @returns their names. */
  accept(server: string, deployment: string, seen: ReadonlyMap<string, string>): string[] {
    return this.#rows(server, deployment).flatMap((row) => {
      if (row.seen_digest === null || seen.get(row.name) !== row.seen_digest) return [];
      const { name, seen_digest, seen: text } = row;
      this.#put(server, deployment, {
        name,
        accepted_digest: seen_digest,
        accepted: text,
        seen_digest: null,
        seen: null,
      });
      return [name];
    });
  }

  /** What a deployment's tools are compared with those that were accepted of the one before it. */
  #deployed(server: string, set: SetRow, rows: readonly Row[]): Difference[] {
    const [before] = this.#sets(server).filter(
      ({ since, deployment }) => since <= set.since && deployment !== set.deployment,
    );
    if (!before) return [];
    const earlier = new Map(this.#rows(server, before.deployment).map((row) => [row.name, row]));
    const now = rows.flatMap((row): Difference[] => {
      const old = earlier.get(row.name);
      earlier.delete(row.name);
      if (row.accepted_digest === null || old?.accepted_digest === row.accepted_digest) return [];
      const change = old?.accepted_digest ? 'changed' : 'added';
      return [
        { name: row.name, change, accepted: old?.accepted ?? null, seen: row.accepted, digest: row.accepted_digest },
      ];
    });
    const gone = [...earlier.values()].filter(({ accepted_digest }) => accepted_digest !== null && set.complete);
    return [
      ...now,
      ...gone.map(
        ({ name, accepted }): Difference => ({ name, change: 'removed', accepted, seen: null, digest: null }),
      ),
    ];
  }

  #begin(server: string, deployment: string, now: number): SetRow {
    this.#sql.exec(
      'INSERT INTO pin_set (server, deployment, since, complete) VALUES (?, ?, ?, 0)',
      server,
      deployment,
      now,
    );
    for (const { deployment: old } of this.#sets(server).slice(KEPT_DEPLOYMENTS)) {
      this.#sql.exec('DELETE FROM pin_set WHERE server = ? AND deployment = ?', server, old);
      this.#sql.exec('DELETE FROM pin WHERE server = ? AND deployment = ?', server, old);
    }
    return { deployment, since: now, complete: 0 };
  }

  /** Newest first. */
  #sets(server: string): SetRow[] {
    return this.#sql
      .exec<SetRow>(
        'SELECT deployment, since, complete FROM pin_set WHERE server = ? ORDER BY since DESC, rowid DESC',
        server,
      )
      .toArray();
  }

  #set(server: string, deployment: string): SetRow | undefined {
    return this.#sets(server).find((set) => set.deployment === deployment);
  }

  #rows(server: string, deployment: string): Row[] {
    return this.#sql
      .exec<Row>(
        'SELECT name, accepted_digest, accepted, seen_digest, seen FROM pin WHERE server = ? AND deployment = ? ORDER BY name',
        server,
        deployment,
      )
      .toArray();
  }

  #row(server: string, deployment: string, name: string): Row | undefined {
    return this.#sql
      .exec<Row>(
        'SELECT name, accepted_digest, accepted, seen_digest, seen FROM pin WHERE server = ? AND deployment = ? AND name = ?',
        server,
        deployment,
        name,
      )
      .toArray()[0];
  }

  #count(server: string, deployment: string): number {
    return this.#sql
      .exec<{ n: number }>('SELECT COUNT(*) AS n FROM pin WHERE server = ? AND deployment = ?', server, deployment)
      .one().n;
  }

  #put(server: string, deployment: string, row: Row): void {
    this.#sql.exec(
      `INSERT OR REPLACE INTO pin (server, deployment, name, accepted_digest, accepted, seen_digest, seen)
       VALUES (?, ?, ?, ?, ?, ?, ?)`,
      server,
      deployment,
      row.name,
      row.accepted_digest,
      row.accepted,
      row.seen_digest,
      row.seen,
    );
  }
}
