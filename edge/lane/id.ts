/**
 * Owns lane ids: the key by which requests of the stateless era (2026-07-28) of one principal at one server find the same
 * state.
 *
 * An id is `lane.` and base64url(24 bytes of HMAC-SHA256 over server and principal): always the same for both, telling
 * nothing of either, and with a dot, which no session id has.
 */
import { base64url, type CryptoKey } from 'jose';

const TAG_BYTES = 24;

/** The lane of `principal` at `server`. `key` is the one that authenticates session ids. */
export async function laneId(key: CryptoKey, server: string, principal: string): Promise<string> {
  // No name of a server holds a NUL, so the two cannot run into each other.
  const data = new TextEncoder().encode(`lane\0${server}\0${principal}`);
  const tag = new Uint8Array(await crypto.subtle.sign('HMAC', key, data)).subarray(0, TAG_BYTES);
  return `lane.${base64url.encode(tag)}`;
}
