/** Owns what a kind of credential is to the edge: one module of this folder, one `Method`. */
import type { AuthConfig } from '../../shared/config/auth.ts';
import type { Credential, Principal } from '../../shared/principal.ts';
import type { ListedToken } from '../../shared/tokens.ts';
import type { Settings } from '../settings.ts';
import type { FetchText } from './keys.ts';
import type { Resource } from './resource.ts';

/** Who knows the bearer tokens. */
export interface TokenFinder {
  /** The living token of this id, if this is its SHA-256. */
  find(id: string, digest: ArrayBuffer): Promise<ListedToken | null>;
}

/** What a token of the built-in authorization server proves. */
export interface Login {
  readonly holder: Pick<Principal, 'subject' | 'issuer' | 'name' | 'groups'>;
  readonly scopes: readonly string[];
  readonly access: NonNullable<Credential['access']>;
}

/** A request that is to be authenticated. */
export interface Attempt {
  readonly settings: Settings;
  readonly auth: AuthConfig;
  readonly url: URL;
  readonly headers: Headers;
  /** What stands in `Authorization: Bearer`; null when nothing does. */
  readonly bearer: string | null;
  readonly tokens: TokenFinder;
  /** The login of an access token, if it is good for the resource. */
  readonly validateLogin: (resource: string, token: string) => Promise<Login | null>;
  /** How documents of issuers are fetched. */
  readonly fetchText: FetchText;
  /** `request.cf.tlsClientAuth`: what the connection's TLS told of the client. */
  readonly certificate: unknown;
  /** What the request is for: a token must be meant for it (RFC 8707). */
  readonly resource: Resource;
  /** The base URL of this edge, as clients write it, without a slash at the end. */
  readonly base: string;
  /** In milliseconds. */
  readonly now: number;
}

/**
 * Who calls, as far as one kind of credential tells; null when the request has none of this kind.
 * @throws MoorageError `authentication_required` for one that is not good: no other kind is then asked.
 */
export type Method = (attempt: Attempt) => Promise<Principal | null>;
