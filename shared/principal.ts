/**
 * Owns who calls, once authentication has answered that: the form in which every later decision sees a caller.
 *
 * Invariant: `subject` alone says whether two callers are the same. It names the issuer too, so that nobody is taken for
 * a namesake of another issuer; sessions, lanes, grants and machines are bound to it.
 */
import { MCP_SCOPE } from './scopes.ts';

/** How a caller proved who it is. */
export type CredentialKind = 'loopback' | 'owner' | 'token' | 'jwt' | 'oauth' | 'mtls' | 'access';

export interface Credential {
  readonly kind: CredentialKind;
  /** Names the credential where one can be revoked: a token's id, never the token. */
  readonly id?: string;
  /** Unix time in milliseconds after which it proves nothing. Absent where nobody knows: a login lives while it is used. */
  readonly expiresAt?: number;
  /** Of a login: the access token with which it showed itself. It can be revoked too; `expiresAt` as above. */
  readonly access?: { readonly id: string; readonly expiresAt: number };
}

export interface Principal {
  /** Unique over all issuers: `anonymous`, `owner`, `token|<name>`, `<issuer>|<sub>`. Visible ASCII: it travels in headers. */
  readonly subject: string;
  /** Who vouches for the subject: a URL for OIDC, else the kind of credential. */
  readonly issuer: string;
  /** For people; decides nothing, but that rules of a policy may name a token by it (`token:<name>`). */
  readonly name?: string;
  readonly groups: readonly string[];
  /** As in `scopes.ts`. */
  readonly scopes: readonly string[];
  /** Claims of a JWT that policies may ask for; JSON values. */
  readonly claims?: Readonly<Record<string, unknown>>;
  readonly credential: Credential;
}

/** Whoever reaches an edge on its host's loopback address: it may use all servers, and not administer them. */
export const ANONYMOUS: Principal = {
  subject: 'anonymous',
  issuer: 'loopback',
  groups: [],
  scopes: [MCP_SCOPE],
  credential: { kind: 'loopback' },
};
