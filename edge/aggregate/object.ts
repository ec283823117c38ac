/**
 * Owns what is known of one session at `/mcp`: its client, and the sessions that it has with servers ("members").
 *
 * - `aggregate(one INTEGER PRIMARY KEY, principal TEXT, initialize TEXT, logLevel TEXT, seen INTEGER)`: one row, or none.
 * - `member(server TEXT PRIMARY KEY, session TEXT)`: the member sessions.
 *
 * Its WebSockets come from the Worker that holds the client's stream (one at most; the newest wins): it is told which
 * members there are, as they come, and what we ourselves have to say. Invariants: principal and initialize never change;
 * a server has one member at a time; an object whose session ended holds nothing.
 */
import { DurableObject } from 'cloudflare:workers';
import type { Env } from '../env.ts';
import { type Outcome, outcomeOf } from '../outcome.ts';
import { respondError } from '../respond.ts';
import { CLOSE_ENDED, CLOSE_REPLACED, STREAM_HEADER } from '../session/object.ts';
import { sessionNotFound } from '../session/refusals.ts';
import { IDLE_MS } from '../session/session.ts';

export interface AggregateState {
  /** `params` of the client's initialize, as JSON text. */
  readonly initialize: string;
  readonly logLevel: string | null;
  /** Server to member session. */
  readonly members: Readonly<Record<string, string>>;
}

/** What the Worker at the client's stream is told. */
export type StreamNews =
  | { readonly type: 'member'; readonly server: string; readonly session: string }
  | { readonly type: 'say'; readonly text: string };

interface Row extends Record<string, SqlStorageValue> {
  principal: string;
  initialize: string;
  logLevel: string | null;
  seen: number;
}

const STREAM = 'stream';
const MAX_MEMBERS = 1000;

export class Aggregate extends DurableObject<Env> {
  readonly #sql: SqlStorage;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#sql = state.storage.sql;
  }

  /** Opens the session. */
  async open(principal: string, initialize: string): Promise<void> {
    this.#sql.exec(
      `CREATE TABLE IF NOT EXISTS aggregate (
         one INTEGER PRIMARY KEY CHECK (one = 1), principal TEXT NOT NULL, initialize TEXT NOT NULL, logLevel TEXT,
         seen INTEGER NOT NULL)`,
    );
    this.#sql.exec('CREATE TABLE IF NOT EXISTS member (server TEXT PRIMARY KEY, session TEXT NOT NULL)');
    const now = Date.now();
    this.#sql.exec(
      'INSERT INTO aggregate (one, principal, initialize, seen) VALUES (1, ?, ?, ?)',
      principal,
      initialize,
      now,
    );
    await this.ctx.storage.setAlarm(now + IDLE_MS);
  }

  /** Admits one message. Refuses `session_not_found`, also when the session is another principal's. */
  admit(principal: string): Promise<Outcome<AggregateState>> {
    return outcomeOf(async () => {
      const { initialize, logLevel } = this.#row(principal);
      this.#sql.exec('UPDATE aggregate SET seen = ?', Date.now());
      const members = this.#sql
        .exec<{ server: string; session: string }>('SELECT server, session FROM member')
        .toArray();
      return {
        initialize,
        logLevel,
        members: Object.fromEntries(members.map(({ server, session }) => [server, session])),
      };
    });
  }

  /** Remembers the level that later members are told. */
  setLogLevel(level: string): void {
    if (this.#known()) this.#sql.exec('UPDATE aggregate SET logLevel = ?', level);
  }

  /**
   * Adds a member, in place of `instead` if that is still the one. Returns the member that stands: of two Workers that
   * open one at the same time, the second is told the first one's.
   */
  addMember(server: string, session: string, instead: string | null): string | null {
    if (!this.#known()) return null;
    const [standing] = this.#sql
      .exec<{ session: string }>('SELECT session FROM member WHERE server = ?', server)
      .toArray();
    if (standing && standing.session !== instead) return standing.session;
    const { count } = this.#sql.exec<{ count: number }>('SELECT COUNT(*) AS count FROM member').one();
    if (!standing && count >= MAX_MEMBERS) return null;
    this.#sql.exec('INSERT OR REPLACE INTO member (server, session) VALUES (?, ?)', server, session);
    this.#tell({ type: 'member', server, session });
    return session;
  }

  /** Says something of our own on the client's stream, where there is one. */
  say(text: string): void {
    this.#tell({ type: 'say', text });
  }

  /** Ends the session. Returns the members, which are the caller's to end. */
  end(principal: string): Promise<Outcome<Readonly<Record<string, string>>>> {
    return outcomeOf(async () => {
      const state = await this.admit(principal);
      if (!state.ok) throw sessionNotFound();
      await this.#forget();
      return state.value.members;
    });
  }

  /** A WebSocket for the Worker that holds the client's stream; it is told the members first. */
  override async fetch(request: Request): Promise<Response> {
    const admitted = await this.admit(request.headers.get(STREAM_HEADER.principal) ?? '');
    if (!admitted.ok) return respondError(sessionNotFound());
    const { 0: client, 1: server } = new WebSocketPair();
    for (const older of this.ctx.getWebSockets(STREAM)) older.close(CLOSE_REPLACED, 'a newer stream took over');
    this.ctx.acceptWebSocket(server, [STREAM]);
    for (const [name, session] of Object.entries(admitted.value.members)) {
      server.send(JSON.stringify({ type: 'member', server: name, session } satisfies StreamNews));
    }
    return new Response(null, { status: 101, webSocket: client });
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }

  override async alarm(): Promise<void> {
    if (!this.#known()) return;
    const { seen } = this.#sql.exec<Row>('SELECT * FROM aggregate').one();
    const listening = this.ctx.getWebSockets(STREAM).some((socket) => socket.readyState === WebSocket.OPEN);
    if (listening) await this.ctx.storage.setAlarm(Date.now() + IDLE_MS);
    else if (Date.now() >= seen + IDLE_MS) await this.#forget();
    else await this.ctx.storage.setAlarm(seen + IDLE_MS);
  }

  #known(): boolean {
    const tables = this.#sql.exec("SELECT 1 FROM sqlite_master WHERE name = 'aggregate'").toArray();
    return tables.length > 0 && this.#sql.exec('SELECT 1 FROM aggregate').toArray().length > 0;
  }

  #row(principal: string): Row {
    const row = this.#known() ? this.#sql.exec<Row>('SELECT * FROM aggregate').one() : undefined;
    if (row?.principal !== principal) throw sessionNotFound();
    return row;
  }

  #tell(news: StreamNews): void {
    for (const socket of this.ctx.getWebSockets(STREAM)) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(news));
    }
  }

  async #forget(): Promise<void> {
    for (const socket of this.ctx.getWebSockets(STREAM)) socket.close(CLOSE_ENDED, 'the session ended');
    await Promise.all([this.ctx.storage.deleteAlarm(), this.ctx.storage.deleteAll()]);
  }
}

/** The object of session `id` at `/mcp`. */
export function aggregateOf(env: Env, id: string): DurableObjectStub<Aggregate> {
  return env.AGGREGATE.get(env.AGGREGATE.idFromName(id));
}
