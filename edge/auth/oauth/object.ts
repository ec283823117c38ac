/**
 * Owns the OAuthStore object: the one place that knows the clients and logins (grants) of the built-in authorization server.
 *
 * Streams that an access token opened are joined to it by hibernating WebSockets, tagged with their login and that token:
 * whatever ends one of these (its client revokes it, the owner does, a code was used twice) deletes its entry, and that
 * closes them. An access token that expires ends nothing: clients refresh it, and its login lives on.
 */
import { DurableObject } from 'cloudflare:workers';
import type { Credential } from '../../../shared/principal.ts';
import type { Env } from '../../env.ts';
import type { Watch } from '../ending.ts';
import { acceptWatch, nothingToWatch, watchAt } from '../watch.ts';
import { type Kept, type KnownPerson, type ListedEntries, OAuthEntries } from './store.ts';

/** What a Worker waits for the end of: keys of entries, and when the access token expires. Only Workers reach an object. */
const HEADER = { login: 'moorage-login', token: 'moorage-access-token', expiresAt: 'moorage-access-token-expires' };
/** The last part of such a key is random, and a WebSocket's tag: the others may be longer than a tag can be. */
const WATCHED_KEY = /^(?:grant:[^:]+|token:[^:]+:[^:]+):([^:]+)$/;

export class OAuthStore extends DurableObject<Env> {
  readonly #entries: OAuthEntries;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#entries = new OAuthEntries(state.storage.sql);
  }

  get(key: string): string | null {
    return this.#entries.get(key, Date.now());
  }

  put(key: string, value: string, expiresAt: number | null): Kept {
    return this.#entries.put(key, value, expiresAt, Date.now());
  }

  delete(key: string): void {
    this.#entries.delete(key, Date.now());
    for (const tag of tagsOf(key)) {
      for (const socket of this.ctx.getWebSockets(tag)) socket.close(1000, 'the login ended');
    }
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

  /** A watch of a login and of one access token, until the login would end if nobody used it any more. */
  override fetch(request: Request): Response {
    const told = (name: string) => request.headers.get(name) ?? '';
    const [login, token, now] = [told(HEADER.login), told(HEADER.token), Date.now()];
    const until = this.#entries.endOf(login, now);
    const revoked = now < Number(told(HEADER.expiresAt)) && this.#entries.endOf(token, now) === undefined;
    if (until === undefined || revoked) return nothingToWatch();
    return acceptWatch(this.ctx, [...tagsOf(login), ...tagsOf(token)], until);
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }
}

export const oauthStoreOf = (env: Env): DurableObjectStub<OAuthStore> => env.OAUTH.get(env.OAUTH.idFromName('oauth'));

/** Watches the login `<user>:<grant>` and the access token with which it showed itself. */
export const watchLogin = (
  env: Env,
  login: string,
  { id, expiresAt }: NonNullable<Credential['access']>,
): Promise<Watch | null> =>
  watchAt(oauthStoreOf(env), {
    [HEADER.login]: `grant:${login}`,
    [HEADER.token]: `token:${login}:${id}`,
    [HEADER.expiresAt]: String(expiresAt),
  });

function tagsOf(key: string): string[] {
  const [, tag] = WATCHED_KEY.exec(key) ?? [];
  return tag === undefined ? [] : [tag];
}
