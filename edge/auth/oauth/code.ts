/** Owns the form of one-time login codes: twelve characters that nobody confuses, in three groups: `XK4T-9QRM-7TWZ`. */

/** Without 0, 1, I, L, O, U: 30 letters and digits, so 58 bits a code. */
const ALPHABET = '23456789ABCDEFGHJKMNPQRSTVWXYZ';
const LENGTH = 12;

export function mintCode(random: (bytes: Uint8Array) => Uint8Array): string {
  let code = '';
  while (code.length < LENGTH) {
    for (const byte of random(new Uint8Array(LENGTH))) {
      // Of the 256 values those that would make some letters likelier are drawn again.
      if (byte < ALPHABET.length * 8 && code.length < LENGTH) code += ALPHABET[byte % ALPHABET.length];
    }
  }
  return `${code.slice(0, 4)}-${code.slice(4, 8)}-${code.slice(8)}`;
}

/** What is stored of a code: SHA-256, hexadecimal, however it was typed. */
export async function codeHash(code: string): Promise<string> {
  const plain = code.toUpperCase().replaceAll(/[^0-9A-Z]/g, '');
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(plain)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
