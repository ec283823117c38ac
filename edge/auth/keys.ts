/**
 * Owns the keys of issuers, as each isolate knows them: fetched when first needed, for 10 minutes, and again when a token
 * names a key that is not among them (rotation), but not more often than every 30 s, whatever is thrown at the edge.
 *
 * Only values are kept between requests, no promises: a Worker's request cannot wait for another's.
 */
import { createRemoteJWKSet, customFetch, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';
import type { JwtIssuer } from '../../shared/config/auth.ts';
import { isLoopbackHost } from '../../shared/config/fetched.ts';
import { MoorageError } from '../../shared/errors.ts';

/** The text of a document. `local`: it may be on the edge's own host. */
export type FetchText = (url: string, local: boolean) => Promise<string>;

const DISCOVERED_FOR_MS = 60 * 60 * 1000;
/** An issuer that failed is left alone for so long. */
const FAILED_FOR_MS = 10_000;

const discovery = z.looseObject({ issuer: z.string(), jwks_uri: z.string() });

const addresses = new Map<string, { readonly url: string; readonly at: number }>();
const keySets = new Map<string, { readonly keys: JWTVerifyGetKey; through: FetchText }>();
const failures = new Map<string, { readonly error: unknown; readonly at: number }>();

/** What looks up the key of a token of this issuer. @throws MoorageError `issuer_away`. */
export async function keysOf(
  { issuer, jwks }: Pick<JwtIssuer, 'issuer' | 'jwks'>,
  fetchText: FetchText,
  now: number,
): Promise<JWTVerifyGetKey> {
  const local = isLoopbackHost(URL.parse(jwks ?? issuer)?.hostname ?? '');
  return keysAt(jwks ?? (await discovered(issuer, fetchText, local, now)), fetchText, local);
}

/** Where an issuer's keys are (OpenID Connect Discovery 1.0, section 4). */
async function discovered(issuer: string, fetchText: FetchText, local: boolean, now: number): Promise<string> {
  const known = addresses.get(issuer);
  if (known && now - known.at < DISCOVERED_FOR_MS) return known.url;
  const text = await once(fetchText)(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, local);
  const document = parsed(text);
  // A document of another issuer would let it vouch for this one's users (section 4.3).
  if (!document || document.issuer !== issuer) {
    throw new MoorageError('issuer_away', `What is said of the issuer "${issuer}" is not about it, or not JSON.`);
  }
  addresses.set(issuer, { url: document.jwks_uri, at: now });
  return document.jwks_uri;
}

function keysAt(url: string, fetchText: FetchText, local: boolean): JWTVerifyGetKey {
  const key = `${url} ${local}`;
  const known = keySets.get(key);
  if (known) {
    known.through = fetchText;
    return known.keys;
  }
  const entry: { keys: JWTVerifyGetKey; through: FetchText } = {
    keys: createRemoteJWKSet(new URL(url), {
      [customFetch]: async (at) => new Response(await once(entry.through)(at, local)),
    }),
    through: fetchText,
  };
  keySets.set(key, entry);
  return entry.keys;
}

/** Does not ask again what has just failed. */
function once(fetchText: FetchText): FetchText {
  return async (url, local) => {
    const failed = failures.get(url);
    if (failed && Date.now() - failed.at < FAILED_FOR_MS) throw failed.error;
    try {
      const text = await fetchText(url, local);
      failures.delete(url);
      return text;
    } catch (error) {
      failures.set(url, { error, at: Date.now() });
      throw error;
    }
  };
}

function parsed(text: string): z.infer<typeof discovery> | null {
  try {
    return discovery.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
