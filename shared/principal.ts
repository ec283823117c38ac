/**
 * Owns who calls, once authentication has answered that: the form in which every later decision sees a caller.
 *
 * Invariant: `subject` alone says whether two callers are the same. It names the issuer too, so that nobody is taken for
 * a namesake of another issuer; sessions, lanes, grants and machines are bound to it.
 */

/** How a caller proved who it is. */
export type CredentialKind = 'loopback' | 'token' | 'jwt' | 'oauth' | 'mtls' | 'access';

export interface Credential {
  readonly kind: CredentialKind;
  /** Names the credential where one can be revoked: a token's id, never the token. */
  readonly id?: string;
  /** Unix time in milliseconds after which it proves nothing. */
  readonly expiresAt?: number;
}

export interface Principal {
  /** Unique over all issuers: `anonymous`, `token:<id>`, `<issuer>|<sub>`. */
  readonly subject: string;
  /** Who vouches for the subject: a URL for OIDC, else the kind of credential. */
  readonly issuer: string;
  /** For people; decides nothing. */
  readonly name?: string;
  readonly groups: readonly string[];
  readonly scopes: readonly string[];
  /** Claims of a JWT that policies may ask for; JSON values. */
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly credential: Credential;
}

/** Whoever reaches an edge that serves its own host alone: its owner. */
export const ANONYMOUS: Principal = {
  subject: 'anonymous',
  issuer: 'loopback',
  groups: [],
  scopes: ['*'],
  credential: { kind: 'loopback' },
};
