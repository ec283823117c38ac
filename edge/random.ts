/** Owns random texts: names that nobody else has, of calls and streams, and secrets. */
import { base64url } from 'jose';

/** 64 random bits, base64url. */
export const randomName = (): string => randomText(8);

/** So many random bytes of a CSPRNG, base64url. */
export function randomText(bytes: number): string {
  return base64url.encode(crypto.getRandomValues(new Uint8Array(bytes)));
}
