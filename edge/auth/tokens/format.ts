/**
 * Owns what a bearer token of ours looks like: `moor_`, then 8 characters that name it, 32 that are secret (190 bits) and 6
 * that check the rest, so that a scanner knows a leaked one from its looks and a mistyped one costs no look-up.
 */
import { TOKEN_PREFIX } from '../../../shared/tokens.ts';

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const ID = 8;
const SECRET = 32;
const CHECK = 6;
const TOKEN = new RegExp(`^${TOKEN_PREFIX}[0-9A-Za-z]{${ID + SECRET + CHECK}}$`);

/** Random bytes that `mintToken` needs: enough for what it throws away. */
export const TOKEN_BYTES = 128;

/** A new token and its id, made of random bytes. Bytes that would make some letters likelier are left out. */
export function mintToken(bytes: Uint8Array): { token: string; id: string } {
  const fair = [...bytes].filter((byte) => byte < 248).slice(0, ID + SECRET);
  if (fair.length < ID + SECRET) throw new RangeError('Too few random bytes for a token.');
  const body = fair.map((byte) => ALPHABET[byte % 62]).join('');
  return { token: `${TOKEN_PREFIX}${body}${checkOf(body)}`, id: body.slice(0, ID) };
}

/** The id of a token; null for what can be none. */
export function tokenId(token: string): string | null {
  if (!TOKEN.test(token)) return null;
  const body = token.slice(TOKEN_PREFIX.length, -CHECK);
  return checkOf(body) === token.slice(-CHECK) ? body.slice(0, ID) : null;
}

/** What is kept of a token: enough entropy went in that no salt and no slow hash is needed. */
export async function tokenDigest(token: string): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token)));
}

/** CRC-32 (ISO 3309) in base 62. */
function checkOf(text: string): string {
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  let rest = (crc ^ 0xffffffff) >>> 0;
  let check = '';
  for (let n = 0; n < CHECK; n++) {
    check = `${ALPHABET[rest % 62]}${check}`;
    rest = Math.floor(rest / 62);
  }
  return check;
}
