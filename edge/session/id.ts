/**
 * Owns public session ids: how one is minted, checked, and which object it lives in.
 *
 * An id is base64url(16 random bytes, 12 bytes of HMAC-SHA256 over those bytes and the server's name). A forged id, or
 * the id of another server's session, is therefore refused without waking an object. Possession of an id is no proof of
 * who calls: the session is bound to its principal as well.
 */
import { base64url, type CryptoKey } from 'jose';

const RANDOM_BYTES = 16;
const TAG_BYTES = 12;
/** 28 bytes in base64url, without padding. */
const ID = /^[A-Za-z0-9_-]{38}$/;

/** A new id for a session of `server`. `random` is 16 bytes from a CSPRNG. */
export async function mintSessionId(key: CryptoKey, server: string, random: Uint8Array): Promise<string> {
  const bytes = new Uint8Array(RANDOM_BYTES + TAG_BYTES);
  bytes.set(random.subarray(0, RANDOM_BYTES));
  bytes.set(await tag(key, server, random), RANDOM_BYTES);
  return base64url.encode(bytes);
}

/** Whether `id` was minted with `key` for `server`. Takes the same time wherever the tag differs. */
export async function isSessionId(key: CryptoKey, server: string, id: string): Promise<boolean> {
  if (!ID.test(id)) return false;
  const bytes = base64url.decode(id);
  const expected = await tag(key, server, bytes.subarray(0, RANDOM_BYTES));
  let difference = 0;
  for (let i = 0; i < TAG_BYTES; i++) difference |= (expected[i] ?? 0) ^ (bytes[RANDOM_BYTES + i] ?? 0);
  // The last character holds 2 unused bits: only the canonical spelling is the id, or one session had four names.
  return difference === 0 && base64url.encode(bytes) === id;
}

/** Name of the Session object that holds `id`. With `shards` 0 it is the id itself. */
export function sessionObjectName(id: string, shards: number): string {
  if (shards === 0) return id;
  let hash = 0;
  for (let i = 0; i < id.length; i++) hash = (Math.imul(hash, 31) + id.charCodeAt(i)) >>> 0;
  return `shard-${hash % shards}`;
}

async function tag(key: CryptoKey, server: string, random: Uint8Array): Promise<Uint8Array> {
  const name = new TextEncoder().encode(server);
  const data = new Uint8Array(RANDOM_BYTES + name.byteLength);
  data.set(random.subarray(0, RANDOM_BYTES));
  data.set(name, RANDOM_BYTES);
  return new Uint8Array(await crypto.subtle.sign('HMAC', key, data)).subarray(0, TAG_BYTES);
}
