/**
 * Owns the Directory: the one object that knows which servers exist and where they run.
 *
 * Table `route(server TEXT PRIMARY KEY, origin TEXT, runtime TEXT, machine TEXT, deployment TEXT, discovery TEXT,
 * isolation TEXT)`: what each origin announced last; `discovery` is `DiscoverySetting` as JSON. It outlives the link, so a server stays known
 * (and named in errors) while its origin is away. Stored answers to discovery are `Copies`, enrolled origins
 * `EnrolledOrigins`, definitions of tools `Pins`, in the same database. Its
 * WebSockets are those of `Listeners`.
 */
import { DurableObject } from 'cloudflare:workers';
import { edgeServers } from 'moorage:edge-servers';
import { isolation as isolationSchema } from '../../shared/config/isolation.ts';
import type { PublicKey } from '../../shared/enrolment.ts';
import { MoorageError } from '../../shared/errors.ts';
import { type AnnouncedServer, announcedServer, DEFAULT_DISCOVERY, discoverySetting } from '../../shared/link.ts';
import { type Answer, Copies, type Copy, type ListedPage } from '../discovery/copies.ts';
import { KINDS, type Kind, kindOf, type Question } from '../discovery/question.ts';
import type { View } from '../discovery/view.ts';
import { type Enrolled, EnrolledOrigins, type Invited } from '../enrolment/origins.ts';
import { type Env, originsOf } from '../env.ts';
import type { Definition } from '../pins/definition.ts';
import { type Observed, Pins, type Standing } from '../pins/pins.ts';
import { LISTENER_HEADER, type Listener, Listeners } from './listeners.ts';
import { decideAnnouncement, type OriginRoute, type Refusal, type Route } from './route.ts';

export class Directory extends DurableObject<Env> {
  readonly #sql: SqlStorage;
  readonly #copies: Copies;
  readonly #listeners: Listeners;
  readonly #origins: EnrolledOrigins;
  readonly #pins: Pins;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#sql = state.storage.sql;
    this.#sql.exec(
      `CREATE TABLE IF NOT EXISTS route (
         server TEXT PRIMARY KEY, origin TEXT NOT NULL, runtime TEXT NOT NULL, machine TEXT NOT NULL,
         deployment TEXT NOT NULL, discovery TEXT NOT NULL, isolation TEXT NOT NULL DEFAULT 'server')`,
    );
    // Of the table before it had these columns; agents announce again when they connect.
    const columns = this.#sql.exec<{ name: string }>("SELECT name FROM pragma_table_info('route')").toArray();
    const added = { discovery: JSON.stringify(DEFAULT_DISCOVERY), isolation: 'server' };
    for (const [column, value] of Object.entries(added)) {
      if (columns.some(({ name }) => name === column)) continue;
      this.#sql.exec(`ALTER TABLE route ADD COLUMN ${column} TEXT NOT NULL DEFAULT '${value}'`);
    }
    this.#copies = new Copies(this.#sql);
    this.#listeners = new Listeners(state);
    this.#pins = new Pins(this.#sql);
    this.#origins = new EnrolledOrigins(this.#sql);
  }

  /** Keeps an invitation, whose code has a secret with this hash. */
  invite(invited: Invited, hash: string): void {
    this.#origins.invite(invited, hash);
  }

  /** See `EnrolledOrigins`. */
  enrol(id: string, hash: string, key: PublicKey): boolean {
    return this.#origins.enrol(id, hash, key, Date.now());
  }

  rotate(id: string, old: PublicKey, key: PublicKey): boolean {
    return this.#origins.rotate(id, old, key);
  }

  /** An origin that is forgotten holds no names and no copies. */
  revoke(id: string): boolean {
    for (const { server, origin } of this.#routes()) {
      if (origin === id) this.#listeners.tell({ server, kinds: [], revoked: true }, '');
    }
    this.announce(id, []);
    return this.#origins.revoke(id);
  }

  enrolled(id: string): Enrolled | undefined {
    return this.#origins.find(id);
  }

  /** For the owner: who is enrolled, who is invited, and which servers each origin has. */
  originsKnown(): {
    enrolled: Enrolled[];
    invited: Invited[];
    servers: { server: string; origin: string }[];
  } {
    const servers = this.#routes().map(({ server, origin }) => ({ server, origin }));
    return { enrolled: this.#origins.list(), invited: this.#origins.invited(Date.now()), servers };
  }

  /** The route of a server, or the names of all servers when there is none of this name. */
  resolve(server: string): { route: Route } | { servers: string[] } {
    if (Object.hasOwn(edgeServers, server)) return { route: { runtime: 'edge', server } };
    const route = this.#routeOf(server);
    return route ? { route } : { servers: this.list() };
  }

  /** Names of all servers, sorted. */
  list(): string[] {
    return [...Object.keys(edgeServers), ...this.#routes().map((route) => route.server)].sort();
  }

  /** Replaces what `origin` announced before. */
  announce(origin: string, servers: readonly AnnouncedServer[]): Refusal[] {
    const { accepted, refused } = decideAnnouncement(origin, servers, this.#routes(), {
      edgeServers: new Set(Object.keys(edgeServers)),
      origins: this.#originIds(),
    });
    const before = this.#routes().filter((route) => route.origin === origin);
    this.ctx.storage.transactionSync(() => {
      this.#sql.exec('DELETE FROM route WHERE origin = ?', origin);
      for (const { server, runtime, machine, deployment, discovery, isolation = 'server' } of accepted) {
        this.#sql.exec(
          `INSERT OR REPLACE INTO route (server, origin, runtime, machine, deployment, discovery, isolation)
           VALUES (?, ?, ?, ?, ?, ?, ?)`,
          server,
          origin,
          runtime,
          machine,
          deployment,
          JSON.stringify(discovery),
          isolation,
        );
      }
      for (const { server, deployment } of before) {
        if (accepted.some((route) => route.server === server && route.deployment === deployment)) continue;
        this.#copies.drop(server);
        this.#copies.doubt({ server, principal: '' }, '*', DEFAULT_DISCOVERY, Date.now());
      }
    });
    const runs = new Map(accepted.map(({ server, deployment }) => [server, deployment]));
    const ran = new Map(before.map(({ server, deployment }) => [server, deployment]));
    for (const server of new Set([...ran.keys(), ...runs.keys()])) {
      if (ran.get(server) !== runs.get(server)) this.#tell(server, null, '');
    }
    return refused;
  }

  /** The stored answer to a question, or null. `asked` goes with the live answer. */
  recall(view: View, question: Question): { copy: Copy | null; asked: number } {
    const now = Date.now();
    const route = this.#routeOf(view.server);
    const copy = route && this.#copies.recall(view, route.deployment, question, route.discovery, now);
    return { copy: copy ?? null, asked: now };
  }

  /** Stores a live answer. `asked` is what `recall` gave before the question went to the server; null means just now. */
  remember(view: View, question: Question, answer: Answer, asked: number | null): void {
    const route = this.#routeOf(view.server);
    if (!route) return;
    const now = Date.now();
    const whose = this.#copies.remember(view, route.deployment, question, answer, route.discovery, asked ?? now, now);
    this.#tell(view.server, kindOf(question.method), whose);
  }

  /** A process said that lists of its server changed. Returns what `reconcile` takes as `at`. */
  doubt(whose: Omit<View, 'variant'>, kind: Kind): number {
    const setting = this.#routeOf(whose.server)?.discovery ?? DEFAULT_DISCOVERY;
    return this.#copies.doubt(whose, kind, setting, Date.now());
  }

  /** Settles the doubt of `at`, if there is one, by what that process lists now; null when it could not be asked. */
  reconcile(view: View, kind: Kind, listed: { pages: ListedPage[]; own: boolean } | null, at: number | null): void {
    const route = this.#routeOf(view.server);
    if (!route) return;
    const whose = this.#copies.reconcile(view, route.deployment, kind, listed, route.discovery, at, Date.now());
    this.#tell(view.server, kind, whose);
    if (whose !== null || at === null || !listed) return;
    // A word that changes nothing here: who hears it may know what the process listed before that.
    const own = listed.own || route.discovery.copies === 'principal';
    this.#listeners.tell({ server: view.server, kinds: [kind], unchanged: true }, own ? view.principal : '');
  }

  /** A WebSocket that hears when lists change. */
  override fetch(request: Request): Response {
    return this.#listeners.accept(request);
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }

  /** Whether the server says of a tool that calling it twice does no more than calling it once. */
  mayRepeatTool(view: View, name: string): boolean {
    const route = this.#routeOf(view.server);
    const annotations = route && this.#copies.tool(view, route.deployment, name)?.annotations;
    if (annotations === null || typeof annotations !== 'object') return false;
    return (
      ('readOnlyHint' in annotations && annotations.readOnlyHint === true) ||
      ('idempotentHint' in annotations && annotations.idempotentHint === true)
    );
  }

  /** Takes a page of a server's list of tools. @returns those that are not as they were accepted. */
  observeTools(server: string, tools: readonly Definition[], isLast: boolean): Observed[] {
    const route = this.#routeOf(server);
    return route ? this.#pins.observe(server, route.deployment, tools, isLast, Date.now()) : [];
  }

  /** Whether a tool is as it was accepted. The edge's own servers change with the edge alone: nothing of them is pinned. */
  toolStanding(server: string, name: string): Standing {
    const route = this.#routeOf(server);
    return route ? this.#pins.standing(server, route.deployment, name) : 'unpinned';
  }

  /** Null where nothing was listed yet; undefined where there is no such server at an origin. */
  toolDifferences(server: string): ReturnType<Pins['differences']> | undefined {
    const route = this.#routeOf(server);
    return route && this.#pins.differences(server, route.deployment);
  }

  /** Accepts tools as they are seen, by name and the digest that their owner saw. @returns the names of those accepted. */
  acceptTools(server: string, seen: readonly { readonly name: string; readonly digest: string }[]): string[] {
    const route = this.#routeOf(server);
    const digests = new Map(seen.map(({ name, digest }) => [name, digest]));
    const accepted = route ? this.#pins.accept(server, route.deployment, digests) : [];
    if (accepted.length > 0) this.#listeners.tell({ server, kinds: ['tools'], accepted: true }, '');
    return accepted;
  }

  /** Lists of one kind, or (null) of all, are others now. `whose` as `Copies` gives it. */
  #tell(server: string, kind: Kind | null, whose: string | null): void {
    if (whose !== null) this.#listeners.tell({ server, kinds: kind === null ? KINDS : [kind] }, whose);
  }

  #routeOf(server: string): OriginRoute | undefined {
    return this.#routes().find((route) => route.server === server);
  }

  #originIds(): Set<string> {
    return new Set([...originsOf(this.env).keys(), ...this.#origins.list().map(({ id }) => id)]);
  }

  /** Routes of origins that this edge still knows, and of names that it has not taken for itself since. */
  #routes(): OriginRoute[] {
    const origins = this.#originIds();
    return this.#sql
      .exec<Record<keyof OriginRoute, string>>(
        'SELECT server, origin, runtime, machine, deployment, discovery, isolation FROM route',
      )
      .toArray()
      .filter((row) => origins.has(row.origin) && !Object.hasOwn(edgeServers, row.server))
      .map((row) => ({
        ...row,
        runtime: announcedServer.shape.runtime.parse(row.runtime),
        discovery: discoverySetting.parse(JSON.parse(row.discovery)),
        isolation: isolationSchema.parse(row.isolation),
      }));
  }
}

/** The Directory's only instance. */
export const directoryOf = (env: Env): DurableObjectStub<Directory> =>
  env.DIRECTORY.get(env.DIRECTORY.idFromName('directory'));

/**
 * A WebSocket that hears `ListNews` as JSON, of one server or of all. Nothing is lost before it is accepted, which is for
 * whoever hears it. @throws MoorageError `overloaded`.
 */
export async function joinDirectory(env: Env, principal: string, server: string | null = null): Promise<WebSocket> {
  const listener = JSON.stringify({ principal, server } satisfies Listener);
  const headers = new Headers({ upgrade: 'websocket', [LISTENER_HEADER]: encodeURIComponent(listener) });
  const { webSocket } = await directoryOf(env).fetch('http://directory/', { headers });
  if (!webSocket) throw new MoorageError('overloaded', 'Too many streams are open here. Close some first.');
  return webSocket;
}
