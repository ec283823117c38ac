/**
 * Owns the interface of Workers KV over the OAuthStore object, as far as `@cloudflare/workers-oauth-provider` uses it. Unlike KV it
 * is consistent: a grant that was revoked is gone for every isolate at once.
 */
import { OAuthError } from '@cloudflare/workers-oauth-provider';
import { MoorageError } from '../../../shared/errors.ts';
import type { OAuthStore } from './object.ts';

interface PutOptions {
  /** Seconds from now, or seconds since 1970. */
  readonly expirationTtl?: number;
  readonly expiration?: number;
}

interface ListOptions {
  readonly prefix?: string | null;
  readonly limit?: number;
  readonly cursor?: string | null;
}

const PAGE = 1000;

export function kvOver(store: DurableObjectStub<OAuthStore>) {
  return {
    get: async (key: string, options?: { readonly type?: string } | string) => {
      const value = await store.get(key);
      const type = typeof options === 'string' ? options : options?.type;
      return value !== null && type === 'json' ? (JSON.parse(value) as unknown) : value;
    },
    put: async (key: string, value: string, { expirationTtl, expiration }: PutOptions = {}) => {
      const seconds = expirationTtl === undefined ? expiration : Date.now() / 1000 + expirationTtl;
      const kept = await store.put(key, value, seconds === undefined ? null : seconds * 1000);
      if (kept === 'full') throw new MoorageError('overloaded', 'This edge remembers too many clients already.');
      // The library makes the answer of it that tells a client to log in anew (RFC 6749, section 5.2).
      if (kept === 'ended') throw new OAuthError('invalid_grant', { description: 'This login was ended.' });
    },
    delete: (key: string) => store.delete(key),
    list: ({ prefix, limit, cursor }: ListOptions = {}) =>
      store.list(prefix ?? '', Math.min(limit ?? PAGE, PAGE), cursor ?? ''),
  };
}
