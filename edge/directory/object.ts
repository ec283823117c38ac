/**
 * Owns the Directory: the one object that knows which servers exist and where they run.
 *
 * Table `route(server TEXT PRIMARY KEY, origin TEXT, runtime TEXT, machine TEXT, deployment TEXT)`: what each origin
 * announced last. It outlives the link, so a server stays known (and named in errors) while its origin is away.
 */
import { DurableObject } from 'cloudflare:workers';
import { edgeServers } from 'moorage:edge-servers';
import { type AnnouncedServer, announcedServer } from '../../shared/link.ts';
import { type Env, originsOf } from '../env.ts';
import { decideAnnouncement, type OriginRoute, type Refusal, type Route } from './route.ts';

export class Directory extends DurableObject<Env> {
  readonly #sql: SqlStorage;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#sql = state.storage.sql;
    this.#sql.exec(
      `CREATE TABLE IF NOT EXISTS route (
         server TEXT PRIMARY KEY, origin TEXT NOT NULL, runtime TEXT NOT NULL, machine TEXT NOT NULL,
         deployment TEXT NOT NULL)`,
    );
  }

  /** The route of a server, or the names of all servers when there is none of this name. */
  resolve(server: string): { route: Route } | { servers: string[] } {
    if (Object.hasOwn(edgeServers, server)) return { route: { runtime: 'edge', server } };
    const route = this.#routes().find((candidate) => candidate.server === server);
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
      origins: new Set(originsOf(this.env).keys()),
    });
    this.ctx.storage.transactionSync(() => {
      this.#sql.exec('DELETE FROM route WHERE origin = ?', origin);
      for (const { server, runtime, machine, deployment } of accepted) {
        this.#sql.exec(
          'INSERT OR REPLACE INTO route (server, origin, runtime, machine, deployment) VALUES (?, ?, ?, ?, ?)',
          server,
          origin,
          runtime,
          machine,
          deployment,
        );
      }
    });
    return refused;
  }

  /** Routes of origins that this edge still knows, and of names that it has not taken for itself since. */
  #routes(): OriginRoute[] {
    const origins = originsOf(this.env);
    return this.#sql
      .exec<Record<keyof OriginRoute, string>>('SELECT server, origin, runtime, machine, deployment FROM route')
      .toArray()
      .filter((row) => origins.has(row.origin) && !Object.hasOwn(edgeServers, row.server))
      .map((row) => ({ ...row, runtime: announcedServer.shape.runtime.parse(row.runtime) }));
  }
}

/** The Directory's only instance. */
export const directoryOf = (env: Env): DurableObjectStub<Directory> =>
  env.DIRECTORY.get(env.DIRECTORY.idFromName('directory'));
