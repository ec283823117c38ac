/**
 * Owns the Worker's bindings that are text, and how one that is JSON is read.
 *
 * Invariant: a setting that is malformed fails closed, with a message that names it and never shows its value.
 */
import type { z } from 'zod';
import { MoorageError } from '../shared/errors.ts';

export interface Settings {
  /** JSON: `[{ id, key: <public JWK>, service?: <name of a service binding>, url?: <https URL of the tunnel> }]`. */
  readonly MOORAGE_ORIGINS?: string;
  /** JSON: the `auth` block of the configuration, or the word `loopback`. Unset: nobody but the owner is let in. */
  readonly MOORAGE_AUTH?: string;
  /** Where clients reach this edge, such as `https://mcp.example.com`. */
  readonly MOORAGE_PUBLIC_URL?: string;
  /** JSON: names beside the public URL's by which this edge may be called (`Host`). */
  readonly MOORAGE_HOSTS?: string;
  /** JSON: origins of web pages that may use this edge, beside those of its own host. */
  readonly MOORAGE_ALLOWED_ORIGINS?: string;
  /** The owner's public Ed25519 key, a JWK as JSON. Who has the private half administers this edge. */
  readonly MOORAGE_OWNER_KEY?: string;
  /** JSON: the `audit` block of the configuration. */
  readonly MOORAGE_AUDIT?: string;
  /** Ends streams of calls that are silent for this long, in milliseconds, for clients that come back (2025-11-25). */
  readonly MOORAGE_END_IDLE_AFTER_MS?: string;
  /** `0` or unset: each session in an object of its own. N: sessions share N objects (cheaper on a host of your own). */
  readonly MOORAGE_SESSION_SHARDS?: string;
  /** JSON: `{ servers: [glob …], tools: [glob …] }`, what `/mcp` shows. Unset: everything. */
  readonly MOORAGE_AGGREGATE?: string;
  /** JSON: the `access` block of the configuration, who may use what. Unset: whoever is let in may use everything. */
  readonly MOORAGE_ACCESS?: string;
  /** JSON: the `limits` block of the configuration, how much callers may ask for. Unset: as much as they like. */
  readonly MOORAGE_LIMITS?: string;
  /** JSON: by server's name what its entry says of `output`, `maxResultBytes` and `pins`. */
  readonly MOORAGE_OUTPUT?: string;
}

/** Bindings never change within an isolate, so each text is parsed once; keyed by the text because tests may change it. */
const parsedTexts = new Map<string, unknown>();

/** What a binding says in JSON. @throws MoorageError `internal` when it is malformed. */
export function settingOf<T>(settings: Settings, name: keyof Settings, schema: z.ZodType<T>, unset: NoInfer<T>): T {
  const text = settings[name];
  if (text === undefined || text === '') return unset;
  const key = `${name}=${text}`;
  const known = parsedTexts.get(key);
  if (known !== undefined) return known as T;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new MoorageError('internal', `${name} of this edge is not JSON.`);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new MoorageError(
      'internal',
      `${name} of this edge is malformed at "${issue?.path.join('.')}": ${issue?.message}.`,
    );
  }
  parsedTexts.set(key, parsed.data);
  return parsed.data;
}
