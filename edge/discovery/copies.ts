/**
 * Owns the stored answers to discovery, within the Directory's database.
 *
 * - `copy(server, deployment, principal, variant, method, page, stored, expires, bytes, next, refused, text)`: one answer as
 *   in `Answer`; `refused` is 0 or 1. `principal` is '' where all callers share it; `page` is '' for the first page and `=<cursor>`
 *   for others; `next` is the cursor that it names; `stored` and `expires` are in milliseconds.
 * - `changed(server, principal, kind, at)`: when a list of a server was last said to have changed, or with kind '*' when
 *   everything did (another deployment); `principal` as above. Answers asked for at or before `at` are not stored.
 *
 * Invariants: a list is answered only when all its pages are there, so nobody gets a cursor of a process that is gone
 * and then nothing; a copy that a server called into question is used for `DOUBT_MS` at most, unless it is confirmed;
 * rows and bytes are bounded, per server and in total, and the oldest go first.
 */
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import type { DiscoverySetting } from '../../shared/link.ts';
import { lifetimeOf } from './hints.ts';
import { type Kind, kindOf, LISTS_OF, nextCursorOf, type Question } from './question.ts';
import type { View } from './view.ts';

/** Larger answers are not stored: a value of a Durable Object's database has 2 MB at most. */
export const MAX_COPY_BYTES = 1_500_000;
export const MAX_SERVER_ROWS = 500;
export const MAX_SERVER_BYTES = 8 * 1024 * 1024;
const MAX_ROWS = 20_000;
const MAX_BYTES = 128 * 1024 * 1024;
const MAX_PAGES = 200;
const METHOD_NOT_FOUND = -32601;
/** How long a copy is used after its server said that it changed: what it lists now is being fetched meanwhile. */
export const DOUBT_MS = 30_000;

/** What a server answered: its `result`, or the `error` by which it refuses a list that it does not have, as JSON text. */
export interface Answer {
  readonly text: string;
  readonly refused: boolean;
}

/** A page as a server listed it just now. */
export interface ListedPage extends Question, Answer {}

/** A stored answer. `stored` is when it was, in milliseconds. */
export interface Copy extends Answer {
  readonly stored: number;
}

type Row = {
  readonly principal: string;
  readonly stored: number;
  readonly expires: number;
  readonly next: string | null;
  readonly refused: number;
  readonly text: string;
};

/** The part of a Durable Object's database that is used here. */
export interface Sql {
  exec<T extends Record<string, string | number | null>>(
    query: string,
    ...bindings: (string | number | null)[]
  ): { toArray(): T[]; one(): T };
}

export class Copies {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
    for (const [table, newest] of [
      ['copy', 'refused'],
      ['changed', 'principal'],
    ] as const) {
      const columns = sql.exec<{ name: string }>(`SELECT name FROM pragma_table_info('${table}')`).toArray();
      // Of another form: what is lost with it is asked for again.
      if (columns.length > 0 && !columns.some(({ name }) => name === newest)) sql.exec(`DROP TABLE ${table}`);
    }
    sql.exec(
      `CREATE TABLE IF NOT EXISTS copy (
         server TEXT NOT NULL, deployment TEXT NOT NULL, principal TEXT NOT NULL, variant TEXT NOT NULL,
         method TEXT NOT NULL, page TEXT NOT NULL, stored INTEGER NOT NULL, expires INTEGER NOT NULL,
         bytes INTEGER NOT NULL, next TEXT, refused INTEGER NOT NULL, text TEXT NOT NULL,
         PRIMARY KEY (server, deployment, variant, method, page, principal))`,
    );
    sql.exec('CREATE INDEX IF NOT EXISTS copy_size ON copy (server, stored, bytes)');
    sql.exec('CREATE INDEX IF NOT EXISTS copy_stored ON copy (stored, bytes)');
    sql.exec(
      `CREATE TABLE IF NOT EXISTS changed (
         server TEXT NOT NULL, principal TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL,
         PRIMARY KEY (server, principal, kind))`,
    );
  }

  /** The stored answer, or null. */
  recall(view: View, deployment: string, question: Question, setting: DiscoverySetting, now: number): Copy | null {
    if (setting.copies === 'none') return null;
    const kind = kindOf(question.method);
    const at = kind === null ? undefined : this.#changedAt(view, kind);
    const principals = setting.copies === 'principal' ? [view.principal] : [view.principal, ''];
    const usable = (page: string): Row | undefined => {
      const row = principals.map((principal) => this.#row({ ...view, principal }, deployment, question.method, page));
      return row.find((found) => found && found.expires > now && !isDoubtful(found.stored, at, now));
    };
    const first = usable(pageOf(question.cursor));
    let next = first?.next ?? null;
    for (let pages = 0; next !== null; pages++) {
      const row = pages < MAX_PAGES ? usable(pageOf(next)) : undefined;
      if (!row) return null;
      next = row.next;
    }
    return first ? { text: first.text, refused: first.refused === 1, stored: first.stored } : null;
  }

  /**
   * Stores an answer that was asked for at `asked`. A result's own caching hints (2026-07-28, "Caching") are kept: one
   * that is `private` is its principal's alone, and a lifetime (`lifetimeOf`) ends it earlier. Returns for whom this is
   * another answer than the one before: a principal, '' for everybody, or null for nobody.
   */
  remember(
    view: View,
    deployment: string,
    question: Question,
    { text, refused }: Answer,
    setting: DiscoverySetting,
    asked: number,
    now: number,
  ): string | null {
    const { server } = view;
    const { method, cursor } = question;
    const kind = kindOf(method);
    const changed = [this.#changedAt(view, '*'), kind === null ? undefined : this.#changedAt(view, kind)];
    if (changed.some((at) => at !== undefined && at >= asked)) return null;
    const bytes = new TextEncoder().encode(text).byteLength;
    const result = refused ? {} : (JSON.parse(text) as Record<string, unknown>);
    const lifetime = lifetimeOf(result) ?? Number.POSITIVE_INFINITY;
    const own = setting.copies === 'principal' || result.cacheScope === 'private';
    const holder = { ...view, principal: own ? view.principal : '' };
    const page = pageOf(cursor);
    const before = this.#row(holder, deployment, method, page);
    // What was asked for later says more.
    if (before && before.stored > asked) return null;
    const news = before && before.text !== text ? holder.principal : null;
    if (news !== null) {
      // A server that introduces itself in another way is another one: nothing that is known of it holds.
      if (kind === null) this.drop(server);
      else if (cursor === null) this.#deleteList(holder, deployment, method);
    }
    // Who may see it has changed: a copy for others, or for one alone, is not what the server says any more.
    this.#deletePage({ ...view, principal: own ? '' : view.principal }, deployment, question);
    if (bytes > MAX_COPY_BYTES) return news;
    const expires = now + Math.min(setting.maxAgeS * 1000, lifetime);
    const next = nextCursorOf(result);
    this.#insert(holder, deployment, question, { stored: now, expires, bytes, next, refused: refused ? 1 : 0, text });
    this.#makeRoom(server);
    return news;
  }

  /**
   * A server said that its lists of `kind` changed: those of everybody, or of a principal where each has its own
   * (`copies: 'principal'`: another's machine has said nothing). Returns the time that `reconcile` names.
   */
  doubt(
    { server, principal }: Omit<View, 'variant'>,
    kind: Kind | '*',
    setting: DiscoverySetting,
    now: number,
  ): number {
    const whose = setting.copies === 'principal' && kind !== '*' ? principal : '';
    this.#sql.exec(
      'INSERT OR REPLACE INTO changed (server, principal, kind, at) VALUES (?, ?, ?, ?)',
      server,
      whose,
      kind,
      now,
    );
    return now;
  }

  /**
   * Settles a doubt with what the process that raised it lists now; null when it could not be asked. `own`: the process
   * changed its lists after it was called. A newer doubt is settled by its own. Without a doubt (`at` is null) the process
   * only starts: what it lists is taken, and what it does not live to list changes nothing. Returns for whom the list is
   * another one now, as `remember` does.
   */
  reconcile(
    view: View,
    deployment: string,
    kind: Kind,
    listed: { readonly pages: readonly ListedPage[]; readonly own: boolean } | null,
    setting: DiscoverySetting,
    at: number | null,
    now: number,
  ): string | null {
    const { server } = view;
    if (at === null ? listed === null : this.#changedAt(view, kind) !== at) return null;
    const whose = setting.copies === 'principal' ? view.principal : '';
    const holders = setting.copies === 'principal' ? [view] : [view, { ...view, principal: '' }];
    const stored = ({ method, cursor }: ListedPage) =>
      holders.map((holder) => this.#row(holder, deployment, method, pageOf(cursor))?.text).find(Boolean) ?? null;
    const verdict = verdictOf(listed && { own: listed.own, pages: listed.pages }, stored);
    if (verdict !== 'drop' && at !== null) {
      this.#sql.exec('DELETE FROM changed WHERE server = ? AND principal = ? AND kind = ?', server, whose, kind);
    }
    if (verdict === 'keep' || (verdict === 'drop' && at === null)) return null;
    // What starts says what it is: it is news only to those who were told something else.
    const isNews = at !== null || (listed?.pages ?? []).some((page) => stored(page) !== null);
    for (const method of LISTS_OF[kind]) {
      // What a process registers while it starts depends on its client: it says nothing about other clients' lists.
      if (at === null) for (const holder of holders) this.#deleteList(holder, deployment, method);
      else {
        this.#sql.exec(
          "DELETE FROM copy WHERE server = ? AND method = ? AND (? = '' OR principal = ?)",
          server,
          method,
          whose,
          whose,
        );
      }
    }
    const pages = verdict === 'replace' && listed ? listed.pages : [];
    for (const page of pages) this.remember(view, deployment, page, page, setting, now, now);
    return isNews ? whose : null;
  }

  /** Forgets all of a server. */
  drop(server: string): void {
    this.#sql.exec('DELETE FROM copy WHERE server = ?', server);
  }

  /** What the server lists of a tool (2025-11-25, "Tool"), however old the copy is, or null. */
  tool(view: View, deployment: string, name: string): Record<string, unknown> | null {
    let cursor: string | null = null;
    for (let pages = 0; pages < MAX_PAGES; pages++) {
      const row: Row | undefined =
        this.#row(view, deployment, 'tools/list', pageOf(cursor)) ??
        this.#row({ ...view, principal: '' }, deployment, 'tools/list', pageOf(cursor));
      if (!row || row.refused === 1) return null;
      const { tools } = JSON.parse(row.text) as { tools?: unknown };
      const found = Array.isArray(tools) ? tools.find((tool) => tool?.name === name) : undefined;
      if (found) return found as Record<string, unknown>;
      cursor = row.next;
      if (cursor === null) return null;
    }
    return null;
  }

  #row(view: View, deployment: string, method: string, page: string): Row | undefined {
    return this.#sql
      .exec<Row>(
        `SELECT principal, stored, expires, next, refused, text FROM copy
         WHERE server = ? AND deployment = ? AND variant = ? AND method = ? AND page = ? AND principal = ?`,
        view.server,
        deployment,
        view.variant,
        method,
        page,
        view.principal,
      )
      .toArray()[0];
  }

  #insert(
    view: View,
    deployment: string,
    { method, cursor }: Question,
    row: Omit<Row, 'principal'> & { readonly bytes: number },
  ): void {
    this.#sql.exec(
      `INSERT OR REPLACE INTO copy
         (server, deployment, principal, variant, method, page, stored, expires, bytes, next, refused, text)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      view.server,
      deployment,
      view.principal,
      view.variant,
      method,
      pageOf(cursor),
      row.stored,
      row.expires,
      row.bytes,
      row.next,
      row.refused,
      row.text,
    );
  }

  #deletePage(view: View, deployment: string, { method, cursor }: Question): void {
    this.#sql.exec(
      `DELETE FROM copy
       WHERE server = ? AND deployment = ? AND variant = ? AND method = ? AND page = ? AND principal = ?`,
      view.server,
      deployment,
      view.variant,
      method,
      pageOf(cursor),
      view.principal,
    );
  }

  #deleteList(view: View, deployment: string, method: string): void {
    this.#sql.exec(
      'DELETE FROM copy WHERE server = ? AND deployment = ? AND variant = ? AND method = ? AND principal = ?',
      view.server,
      deployment,
      view.variant,
      method,
      view.principal,
    );
  }

  #changedAt({ server, principal }: Omit<View, 'variant'>, kind: Kind | '*'): number | undefined {
    const { at } = this.#sql
      .exec<{ at: number | null }>(
        "SELECT MAX(at) AS at FROM changed WHERE server = ? AND principal IN ('', ?) AND kind = ?",
        server,
        principal,
        kind,
      )
      .one();
    return at ?? undefined;
  }

  #makeRoom(server: string): void {
    const size = (where: string, ...bindings: string[]) =>
      this.#sql
        .exec<{ rows: number; bytes: number | null }>(
          `SELECT COUNT(*) AS rows, SUM(bytes) AS bytes FROM copy ${where}`,
          ...bindings,
        )
        .one();
    const oldest = (where: string) =>
      `DELETE FROM copy WHERE rowid IN (SELECT rowid FROM copy ${where} ORDER BY stored LIMIT 1)`;
    for (let of = size('WHERE server = ?', server); exceeds(of, MAX_SERVER_ROWS, MAX_SERVER_BYTES); ) {
      this.#sql.exec(oldest('WHERE server = ?'), server);
      of = size('WHERE server = ?', server);
    }
    for (let of = size(''); exceeds(of, MAX_ROWS, MAX_BYTES); of = size('')) this.#sql.exec(oldest(''));
  }
}

/** What may be stored of a response: a result, or that the server has no such list; null for anything else. */
export function answerOf(message: JsonRpcMessage, method: string): Answer | null {
  if ('result' in message) return { text: JSON.stringify(message.result), refused: false };
  const refused = 'error' in message && message.error.code === METHOD_NOT_FOUND && kindOf(method) !== null;
  return refused ? { text: JSON.stringify(message.error), refused } : null;
}

const pageOf = (cursor: string | null): string => (cursor === null ? '' : `=${cursor}`);

const exceeds = (size: { rows: number; bytes: number | null }, rows: number, bytes: number): boolean =>
  size.rows > rows || (size.bytes ?? 0) > bytes;

const isDoubtful = (stored: number, changedAt: number | undefined, now: number): boolean =>
  changedAt !== undefined && stored <= changedAt && now >= changedAt + DOUBT_MS;

/**
 * What a change of lists means for the copies. Pure.
 *
 * Many servers announce a change while they start, because they register their tools one by one: when what they list is
 * what is stored, nothing changed. A process that was not called yet lists what every fresh one will; one that was
 * called may list what is its own, and then only a fresh process can say what is true for others.
 */
export function verdictOf(
  listed: { readonly pages: readonly ListedPage[]; readonly own: boolean } | null,
  stored: (page: ListedPage) => string | null,
): 'keep' | 'replace' | 'drop' {
  if (listed === null) return 'drop';
  if (listed.pages.every((page) => stored(page) === page.text)) return 'keep';
  return listed.own ? 'drop' : 'replace';
}
