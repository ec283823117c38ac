/**
 * Owns the key of the machine in which a server serves a caller. The edge puts it into the grant, the origin makes it again
 * from the grant's principal and session: a name that comes from outside decides nothing.
 *
 * `<machine>` for all callers, `<machine>.p-<digest>` for a principal, `<machine>.s-<digest>` for a session. A machine's
 * name has no dot, so no such key is a name. Digests are the first 128 bits of SHA-256, hexadecimal: a key is a folder's
 * name and gives nobody's subject or session id away.
 */
import type { Isolation } from './config/isolation.ts';

export interface Caller {
  /** Subject of the principal. */
  readonly principal: string;
  readonly session: string;
}

const DIGEST_BYTES = 16;

export async function machineKeyOf(machine: string, isolation: Isolation, caller: Caller): Promise<string> {
  switch (isolation) {
    case 'server':
      return machine;
    case 'principal':
      return `${machine}.p-${await digestOf(caller.principal)}`;
    case 'session':
      // A session belongs to one principal: another one's, under the same id, would be another machine.
      return `${machine}.s-${await digestOf(JSON.stringify([caller.principal, caller.session]))}`;
  }
}

async function digestOf(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  return Array.from(digest.subarray(0, DIGEST_BYTES), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
