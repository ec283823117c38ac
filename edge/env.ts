/**
 * Owns what the Worker is given: its bindings, and the settings read out of them.
 *
 * Invariant: bindings are parsed here, or by `settingOf` with the schema of whom they concern; a setting that is
 * missing or malformed fails closed, with a message that names it and never shows its value.
 */
import type { CryptoKey, JWK } from 'jose';
import { z } from 'zod';
import { type PublicKey, publicKey } from '../shared/enrolment.ts';
import { MoorageError } from '../shared/errors.ts';
import { importKey } from '../shared/grant.ts';
import { accessHeaders, type ServiceToken, serviceTokens } from '../shared/service-token.ts';
import type { Aggregate } from './aggregate/object.ts';
import type { Audit } from './audit/object.ts';
import type { OAuthStore } from './auth/oauth/object.ts';
import type { Tokens } from './auth/tokens/object.ts';
import type { Directory } from './directory/object.ts';
import type { Lane } from './lane/object.ts';
import type { Limiter } from './limits/object.ts';
import type { Origin } from './origin/object.ts';
import type { Session } from './session/object.ts';
import { type Settings, settingOf } from './settings.ts';

export interface Env extends Settings {
  readonly SESSION: DurableObjectNamespace<Session>;
  readonly DIRECTORY: DurableObjectNamespace<Directory>;
  readonly ORIGIN: DurableObjectNamespace<Origin>;
  readonly LANE: DurableObjectNamespace<Lane>;
  readonly AGGREGATE: DurableObjectNamespace<Aggregate>;
  readonly TOKENS: DurableObjectNamespace<Tokens>;
  readonly LIMITER: DurableObjectNamespace<Limiter>;
  readonly AUDIT: DurableObjectNamespace<Audit>;
  /** The way to issuers on the edge's own host; there only where the owner configured one. */
  readonly LOOPBACK?: Fetcher;
  readonly OAUTH: DurableObjectNamespace<OAuthStore>;
  /** The secret of this edge at the upstream of `auth.oauth`. Secret; unset for a public client. */
  readonly MOORAGE_UPSTREAM_SECRET?: string;
  /** The edge's private Ed25519 key, a JWK as JSON. Secret. */
  readonly MOORAGE_EDGE_KEY?: string;
  /** The key that will follow it: origins are told of it, so that the two can be exchanged while they run. Secret. */
  readonly MOORAGE_NEXT_EDGE_KEY?: string;
  /** JSON: `{ <origin>: { clientId, clientSecret } }`, service tokens of Cloudflare Access in front of origins. Secret. */
  readonly MOORAGE_ORIGIN_ACCESS?: string;
  /** Leads to the addresses of enrolled origins, on an edge whose own network is the public one alone. */
  readonly ORIGIN_NETWORK?: Fetcher;
  /** What session ids are authenticated with: any text of 32 bytes or more. Secret. */
  readonly MOORAGE_SESSION_SECRET?: string;
}

/** An origin as the edge knows it before it ever dialled in. */
export interface KnownOrigin {
  readonly id: string;
  readonly key: JWK;
  readonly service?: string | undefined;
  readonly url?: string | undefined;
}

const originsSchema = z.array(
  z
    .object({
      id: z.string().min(1).max(63),
      key: z.looseObject({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: z.string() }),
      service: z.string().min(1).optional(),
      url: z.url({ protocol: /^https$/ }).optional(),
    })
    .refine((origin) => origin.service !== undefined || origin.url !== undefined, 'give "service" or "url"'),
);

/** Bindings never change within an isolate, so each text is parsed once; keyed by the text because tests may change it. */
const parsedOrigins = new Map<string, ReadonlyMap<string, KnownOrigin>>();
const importedKeys = new Map<string, Promise<CryptoKey>>();
const importedSecrets = new Map<string, Promise<CryptoKey>>();

/** The origins that this edge trusts, by id. @throws MoorageError `internal` when `MOORAGE_ORIGINS` is malformed. */
export function originsOf(env: Env): ReadonlyMap<string, KnownOrigin> {
  const text = env.MOORAGE_ORIGINS ?? '[]';
  const known = parsedOrigins.get(text);
  if (known) return known;
  const parsed = settingOf(env, 'MOORAGE_ORIGINS', originsSchema, []);
  const origins: ReadonlyMap<string, KnownOrigin> = new Map(parsed.map((origin) => [origin.id, origin]));
  parsedOrigins.set(text, origins);
  return origins;
}

/** How many objects sessions share; 0 means one object for each session. */
export function shardsOf(env: Env): number {
  const shards = Number(env.MOORAGE_SESSION_SHARDS ?? '0');
  if (!Number.isInteger(shards) || shards < 0 || shards > 4096) {
    throw new MoorageError('internal', 'MOORAGE_SESSION_SHARDS of this edge must be a whole number from 0 to 4096.');
  }
  return shards;
}

const aggregateSchema = z.object({ servers: z.array(z.string()), tools: z.array(z.string()) });

/** What `/mcp` shows. @throws MoorageError `internal` when `MOORAGE_AGGREGATE` is malformed. */
export function aggregateSettingsOf(env: Env): z.infer<typeof aggregateSchema> {
  return settingOf(env, 'MOORAGE_AGGREGATE', aggregateSchema, { servers: ['*'], tools: ['*'] });
}

/** After how long a silent stream is ended, in milliseconds; undefined: never. */
export function endIdleAfterOf(env: Env): number | undefined {
  const text = env.MOORAGE_END_IDLE_AFTER_MS;
  if (text === undefined || text === '') return undefined;
  const after = Number(text);
  if (!Number.isInteger(after) || after < 1) {
    throw new MoorageError(
      'internal',
      'MOORAGE_END_IDLE_AFTER_MS of this edge must be a whole number of milliseconds.',
    );
  }
  return after;
}

/** The key that signs grants. @throws MoorageError `internal` when it is missing or unusable. */
export function edgeKeyOf(env: Env): Promise<CryptoKey> {
  return once(importedKeys, required(env, 'MOORAGE_EDGE_KEY'), async (text) => {
    try {
      return await importKey(text);
    } catch {
      // The thrown text may quote the key: only its name is told.
      throw new MoorageError('internal', 'MOORAGE_EDGE_KEY of this edge is not an Ed25519 JWK.');
    }
  });
}

/** The edge's public keys: the one that it signs with, and the one that will follow it, if there is one. */
export function edgePublicKeysOf(env: Env): [PublicKey, ...PublicKey[]] {
  const current = publicHalf(required(env, 'MOORAGE_EDGE_KEY'), 'MOORAGE_EDGE_KEY');
  const next = env.MOORAGE_NEXT_EDGE_KEY;
  return next ? [current, publicHalf(next, 'MOORAGE_NEXT_EDGE_KEY')] : [current];
}

function publicHalf(text: string, name: string): PublicKey {
  try {
    const { kty, crv, x } = JSON.parse(text) as JWK;
    return publicKey.parse({ kty, crv, x });
  } catch {
    throw new MoorageError('internal', `${name} of this edge is not an Ed25519 JWK.`);
  }
}

/** Headers that let the edge through Cloudflare Access to an origin ("Service tokens"); none where none are set. */
export function accessHeadersOf(env: Env, origin: string): Record<string, string> {
  if (!env.MOORAGE_ORIGIN_ACCESS) return {};
  let tokens: Record<string, ServiceToken>;
  try {
    tokens = serviceTokens.parse(JSON.parse(env.MOORAGE_ORIGIN_ACCESS));
  } catch {
    // The thrown text may quote a secret: only the name is told.
    throw new MoorageError('internal', 'MOORAGE_ORIGIN_ACCESS of this edge is malformed.');
  }
  const token = Object.hasOwn(tokens, origin) ? tokens[origin] : undefined;
  return token ? accessHeaders(token) : {};
}

/** The pinned public key of an origin. */
export function originKeyOf(origin: KnownOrigin): Promise<CryptoKey> {
  return once(importedKeys, JSON.stringify(origin.key), () => importKey(origin.key));
}

/** The key that authenticates session ids (HMAC-SHA256). @throws MoorageError `internal` when it is missing or short. */
export function sessionKeyOf(env: Env): Promise<CryptoKey> {
  return once(importedSecrets, required(env, 'MOORAGE_SESSION_SECRET'), (text) => {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length < 32) throw new MoorageError('internal', 'MOORAGE_SESSION_SECRET of this edge is too short.');
    return crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  });
}

function required(env: Env, name: 'MOORAGE_EDGE_KEY' | 'MOORAGE_SESSION_SECRET'): string {
  const value = env[name];
  if (!value) throw new MoorageError('internal', `${name} of this edge is not set: \`wrangler secret put ${name}\`.`);
  return value;
}

function once<T>(cache: Map<string, Promise<T>>, text: string, make: (text: string) => Promise<T> | T): Promise<T> {
  const known = cache.get(text);
  if (known) return known;
  const made = Promise.resolve(make(text));
  cache.set(text, made);
  return made;
}
