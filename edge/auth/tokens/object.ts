/**
 * Owns the Tokens object: the one place that knows which bearer tokens live. It is asked at every request that shows one, so
 * a token that is revoked is refused from that moment, in every isolate.
 *
 * Streams that a token opened are joined to it by hibernating WebSockets, tagged with the token's id: revoking closes them.
 */
import { DurableObject } from 'cloudflare:workers';
import { MoorageError } from '../../../shared/errors.ts';
import type { ListedToken, NewToken } from '../../../shared/tokens.ts';
import type { Env } from '../../env.ts';
import { type Outcome, outcomeOf } from '../../outcome.ts';
import type { Watch } from '../ending.ts';
import { acceptWatch, nothingToWatch, watchAt } from '../watch.ts';
import { TokenBook } from './book.ts';
import { mintToken, TOKEN_BYTES, tokenDigest } from './format.ts';

/** Which token's end a Worker waits for; only Workers reach an object. */
const ID_HEADER = 'moorage-token-id';

export class Tokens extends DurableObject<Env> {
  readonly #book: TokenBook;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#book = new TokenBook(state.storage.sql);
  }

  /** The living token of this id, if this is its digest. */
  find(id: string, digest: ArrayBuffer): ListedToken | null {
    return this.#book.find(id, (kept) => crypto.subtle.timingSafeEqual(kept, digest), Date.now());
  }

  /** Makes a token: the only time that it is seen. */
  create(wish: NewToken, createdBy: string): Promise<Outcome<{ id: string; token: string }>> {
    return outcomeOf(async () => {
      const { id, token } = mintToken(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)));
      this.#book.create(id, (await tokenDigest(token)).buffer, wish, createdBy, Date.now());
      return { id, token };
    });
  }

  list(): ListedToken[] {
    return this.#book.list();
  }

  /** Refuses `not_found`. */
  revoke(idOrName: string): Promise<Outcome<ListedToken>> {
    return outcomeOf(() => {
      const revoked = this.#book.revoke(idOrName, Date.now());
      if (!revoked) throw new MoorageError('not_found', `There is no living token "${idOrName.slice(0, 128)}".`);
      for (const socket of this.ctx.getWebSockets(revoked.id)) socket.close(1000, 'the token was revoked');
      return revoked;
    });
  }

  /** A watch of a token; when it expires, the Worker knows. */
  override fetch(request: Request): Response {
    const id = request.headers.get(ID_HEADER) ?? '';
    return this.#book.isLiving(id, Date.now()) ? acceptWatch(this.ctx, [id], null) : nothingToWatch();
  }

  override webSocketClose(socket: WebSocket): void {
    socket.close();
  }
}

export const tokensOf = (env: Env): DurableObjectStub<Tokens> => env.TOKENS.get(env.TOKENS.idFromName('tokens'));

/** Watches the token of this id. */
export const watchToken = (env: Env, id: string): Promise<Watch | null> => watchAt(tokensOf(env), { [ID_HEADER]: id });
