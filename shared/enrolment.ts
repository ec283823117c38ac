/**
 * Owns how an origin and an edge come to know each other's keys: the one-time code, and what the two say over HTTP.
 *
 * 1. The edge's owner invites an origin: the edge keeps a hash of the secret and answers with a *code*,
 *    `<origin>.<secret>.<fingerprint>`, which is carried to the origin by hand.
 * 2. The origin makes its own key and posts it with the secret to `ENROL_PATH`. The edge pins it and answers with its own,
 *    which the origin pins only if the code's fingerprint is of it: whoever stands between the two cannot swap it.
 * 3. To change its key, an origin posts the new public key to `ROTATE_PATH`, signed for by the old key and by the new one.
 *
 * | Request | Body | Answers |
 * |---|---|---|
 * | `POST /_origin/enrol` | `enrolRequest` | `200` `enrolAnswer`; `401` for a code that is unknown, used or too old |
 * | `POST /_origin/rotate` | `rotateRequest`, under a link token of the old key | `204`; `401` |
 */
import { calculateJwkThumbprint } from 'jose';
import { z } from 'zod';

export const ENROL_PATH = '/_origin/enrol';
export const ROTATE_PATH = '/_origin/rotate';

/** A public Ed25519 key (RFC 8037). A private part is refused: it would have been shown to the other half. */
export const publicKey = z.strictObject({
  kty: z.literal('OKP'),
  crv: z.literal('Ed25519'),
  x: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
});
export type PublicKey = z.infer<typeof publicKey>;

export const originId = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'use lower case letters, digits and "-"');

export const enrolRequest = z.strictObject({ id: originId, secret: z.string().min(1).max(64), key: publicKey });
/** `keys`: the edge's public keys, the one that it signs with first. */
export const enrolAnswer = z.object({ id: originId, keys: z.array(publicKey).min(1).max(2) });
/** `proof`: a link token of the new key. */
export const rotateRequest = z.strictObject({ key: publicKey, proof: z.string().max(2048) });

export interface Code {
  readonly id: string;
  /** 128 random bits, base64url. */
  readonly secret: string;
  /** `fingerprintOf` the edge's key. */
  readonly fingerprint: string;
}

export const formatCode = ({ id, secret, fingerprint }: Code): string => `${id}.${secret}.${fingerprint}`;

/** The parts of a code, or undefined for what is none. */
export function parseCode(text: string): Code | undefined {
  const [, id, secret, fingerprint] =
    /^([a-z0-9][a-z0-9-]{0,62})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{22})$/.exec(text.trim()) ?? [];
  return id && secret && fingerprint ? { id, secret, fingerprint } : undefined;
}

/** The first 128 bits of a key's thumbprint (RFC 7638, SHA-256), base64url: enough that nobody finds another key for it. */
export async function fingerprintOf(key: PublicKey): Promise<string> {
  return (await calculateJwkThumbprint(key, 'sha256')).slice(0, 22);
}
