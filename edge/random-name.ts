/** Owns names that nobody else has: of calls and streams. */

/** 8 random bytes in base64url. */
export function randomName(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '');
}
