/**
 * Owns `auth.oauth` of `moorage.jsonc`: the authorization server that is built in, for MCP clients that log their user in with a
 * browser, and how it comes to know who that user is.
 */
import { z } from 'zod';
import { fetched } from './fetched.ts';

/** `alice`, `*@example.com`: who of an upstream's users is let in. */
const allow = z
  .array(
    z.string().regex(/^[\x21-\x7e]{1,254}$/, 'write an address such as "alice@example.com", "*@example.com" or "*"'),
  )
  .min(1)
  .max(1000);

const clientId = z.string().min(1).max(256);

const oidc = z.strictObject({
  type: z.literal('oidc'),
  /** Exactly as in its discovery document. */
  issuer: fetched,
  clientId,
  /** Asked for beside `openid`. */
  scopes: z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/)).default(['email', 'profile']),
  groupsClaim: z.string().min(1).max(128).default('groups'),
  /** Verified e-mail addresses, or subjects. */
  allow,
});

const github = z.strictObject({
  type: z.literal('github'),
  /** Where it is: github.com, or a GitHub Enterprise Server such as `https://ghe.example.com`. */
  url: fetched
    .refine((text) => URL.parse(text)?.pathname === '/' && URL.parse(text)?.search === '', 'give no path')
    .transform((text) => new URL(text).origin)
    .default('https://github.com'),
  clientId,
  /** Organizations (`acme`) and teams (`acme/ops`) become groups. GitHub asks people whether the edge may read them. */
  groups: z.boolean().default(false),
  /** Names of accounts. */
  allow,
});

/** Seconds. */
const life = (shortest: number, longest: number) => z.number().int().min(shortest).max(longest);

export const oauthSchema = z.strictObject({
  /** Where users prove who they are. Without one: by a one-time code that `moorage login code` prints. */
  upstream: z.discriminatedUnion('type', [oidc, github]).optional(),
  /** How long an access token is good, in seconds. */
  accessTokenLife: life(60, 86_400).default(3600),
  /** How long a login that is not used is good, in seconds. */
  loginLife: life(3600, 365 * 86_400).default(30 * 86_400),
});

export type OAuthConfig = z.infer<typeof oauthSchema>;
export type Upstream = NonNullable<OAuthConfig['upstream']>;

/** Whether somebody with one of these names is let in. `*@host` is every address at that host, `*` everybody. */
export function isAllowed(allowed: readonly string[], names: readonly string[]): boolean {
  const known = names.map((name) => name.toLowerCase());
  return allowed.some((entry) => {
    const wanted = entry.toLowerCase();
    if (wanted === '*') return known.length > 0;
    return wanted.startsWith('*@') ? known.some((name) => name.endsWith(wanted.slice(1))) : known.includes(wanted);
  });
}
