/**
 * Owns the OAuthStore object: the one place that knows the clients and grants of the built-in authorization server.
 *
 * Streams that an access token opened are joined to it by hibernating WebSockets, tagged with their grant: whatever ends the
 * grant (its client revokes it, the owner does, a refresh token was used twice) deletes its entry, and that closes them.
 */
import { DurableObject } from 'cloudflare:workers';
import type { Env } from '../../env.ts';
import { type KnownPerson, type ListedEntries, OAuthEntries } from './store.ts';

/** Which grant's end a Worker waits for; only Workers reach an object. */
const GRANT_HEADER = 'moorage-grant';
const MAX_WATCHERS = 30_000;
const GRANT_KEY = /^grant:([^:]+:[^:]+)$/;

export class OAuthStore extends DurableObject<Env> {
  readonly #entries: OAuthEntries;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#entries = new OAuthEntries(state.storage.sql);
  }

  get(key: string): string | null {
    return this.#entries.get(key, Date.now());
  }

  /** False when the store is full. */
  put(key: string, value: string, expiresAt: number | null): boolean {
    return this.#entries.put(key, value, expiresAt, Date.now());
  }

  delete(key: string): void {
    this.#entries.delete(key);
    const [, grant] = GRANT_KEY.exec(key) ?? [];
    for (const socket of grant === undefined ? [] : this.ctx.getWebSockets(grant))
      socket.close(1000, 'the login ended');
  }

  list(prefix: string, limit: number, cursor: string): ListedEntries {
    return this.#entries.list(prefix, limit, cursor, Date.now());
  }

  addCode(hash: string, person: KnownPerson, expiresAt: number): void {
    this.#entries.addCode(hash, person, expiresAt);
  }

  takeCode(hash: string): KnownPerson | null {
    return this.#entries.takeCode(hash, Date.now());
  }

  /** A WebSocket that closes when the grant ends; 410 when it has. */
  override fetch(request: Request): Response {
    const grant = request.headers.get(GRANT_HEADER) ?? '';
    if (this.#entries.get(`grant:${grant}`, Date.now()) === null) return new Response(null, { status: 410 });
    if (this.ctx.getWebSockets().length >= MAX_WATCHERS) return new Response(null, { status: 503 });
    const { 0: client, 1: server } = new WebSocketPair();
    this.ctx.acceptWebSocket(server, [grant]);
    return new Response(null, { status: 101, webSocket: client });
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }
}

export const oauthStoreOf = (env: Env): DurableObjectStub<OAuthStore> => env.OAUTH.get(env.OAUTH.idFromName('oauth'));

/** A WebSocket that closes when the grant `<user>:<grant>` ends. Null: it has, or nobody could tell. */
export async function watchGrant(env: Env, grant: string): Promise<WebSocket | null> {
  const headers = new Headers({ upgrade: 'websocket', [GRANT_HEADER]: grant });
  const { webSocket } = await oauthStoreOf(env).fetch('http://oauth/', { headers });
  webSocket?.accept();
  return webSocket ?? null;
}
