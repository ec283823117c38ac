/**
 * Owns the `auth` block of `moorage.jsonc`: which kinds of credentials the edge takes. The edge reads the same block, as
 * JSON, from `MOORAGE_AUTH`.
 *
 * Several kinds may be on at once. Without the block `loopback` alone is on.
 */
import { z } from 'zod';
import { isScope, MCP_SCOPE } from '../scopes.ts';
import { fetched, isLoopbackHost } from './fetched.ts';
import { oauthSchema } from './oauth.ts';

/** Signatures that are taken (RFC 8725, section 3.1): asymmetric ones, so that no public key can pass for a secret. */
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'] as const;

export const scopeSchema = z.string().refine(isScope, 'write "mcp", "server:<name>" or "admin"');
const scopes = z.array(scopeSchema).max(200);
/** Visible ASCII: it becomes part of a subject, which travels in headers. */
export const nameSchema = z
  .string()
  .regex(/^[\x21-\x7e]{1,128}$/, 'use 1 to 128 visible ASCII characters without spaces');
const groups = z.array(z.string().min(1).max(256)).max(200).default([]);

const jwt = z.strictObject({
  /** Exactly as in the tokens' `iss`. */
  issuer: fetched,
  /** Taken beside the URLs of Moorage itself (`https://host/<server>/mcp`, `https://host`). */
  audience: z.array(z.string().min(1).max(512)).max(20).default([]),
  /** Address of the keys. Default: what the issuer's discovery document says. */
  jwks: fetched.optional(),
  algorithms: z.array(z.enum(ALGORITHMS)).min(1).default(['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA']),
  /** Name of the claim that lists groups. */
  groupsClaim: z.string().min(1).max(128).default('groups'),
  /** Scopes that every token of this issuer has, beside those that it names. */
  scopes: scopes.default([]),
  /** What clients are told to ask this issuer for. Default: Moorage's own scopes. */
  requestScopes: z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'this is not a scope')).optional(),
});

const FINGERPRINT = /^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$/;

const mtlsClient = z
  .strictObject({
    name: nameSchema,
    /** SHA-256 of the certificate. */
    fingerprint: z
      .string()
      .regex(FINGERPRINT, 'write the SHA-256 fingerprint, 64 hexadecimal digits with or without ":"')
      .transform((text) => text.replaceAll(':', '').toLowerCase())
      .optional(),
    /** Distinguished name of the certificate's subject (RFC 2253), such as `CN=ci,O=Example`. */
    subject: z.string().min(1).max(1024).optional(),
    scopes: scopes.default([MCP_SCOPE]),
    groups,
  })
  .refine(({ fingerprint, subject }) => (fingerprint === undefined) !== (subject === undefined), {
    error: 'give "fingerprint" or "subject"',
  });

const access = z.strictObject({
  /** `<team>.cloudflareaccess.com`. */
  team: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'write the team\'s name, without ".cloudflareaccess.com"'),
  /** The application's audience tag. */
  audience: z.string().regex(/^[0-9a-f]{64}$/, "write the application's audience tag, 64 hexadecimal digits"),
  scopes: scopes.default([MCP_SCOPE]),
});

export const authSchema = z.strictObject({
  /** Whoever reaches the edge on a loopback address of its host is let in. */
  loopback: z.boolean().default(false),
  /** Bearer tokens that `moorage token create` makes. */
  tokens: z.boolean().default(false),
  jwt: z.array(jwt).max(20).default([]),
  mtls: z.strictObject({ clients: z.array(mtlsClient).min(1).max(1000) }).optional(),
  access: access.optional(),
  /** The authorization server that is built in. */
  oauth: oauthSchema.optional(),
});

export type AuthConfig = z.infer<typeof authSchema>;
export type JwtIssuer = AuthConfig['jwt'][number];
export type MtlsClient = NonNullable<AuthConfig['mtls']>['clients'][number];

export const LOOPBACK_ONLY: AuthConfig = { loopback: true, tokens: false, jwt: [] };

/** Whether callers from outside can show a credential at all. */
export const admitsOutsiders = (auth: AuthConfig): boolean =>
  auth.tokens ||
  auth.jwt.length > 0 ||
  auth.mtls !== undefined ||
  auth.access !== undefined ||
  auth.oauth !== undefined;

/** Whether an issuer is on the edge's own host. */
export const hasLocalIssuer = ({ jwt, oauth }: AuthConfig): boolean => {
  const issuers = jwt.map(({ issuer, jwks }) => jwks ?? issuer);
  if (oauth?.upstream) issuers.push(oauth.upstream.type === 'oidc' ? oauth.upstream.issuer : oauth.upstream.url);
  return issuers.some((issuer) => isLoopbackHost(URL.parse(issuer)?.hostname ?? ''));
};
