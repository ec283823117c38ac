/** Owns the key by which SSH clients know this origin: made once, kept in the state folder beside its public half. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ssh2 from 'ssh2';

const NAME = 'ssh_host_ed25519_key';

/** The private key in OpenSSH's format. */
export function loadHostKey(stateDir: string): string {
  const path = join(stateDir, NAME);
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const pair = ssh2.utils.generateKeyPairSync('ed25519', { comment: 'moorage' });
  for (const [file, text, mode] of [
    [`${path}.pub`, `${pair.public}\n`, 0o644],
    [path, pair.private, 0o600],
  ] as const) {
    writeFileSync(`${file}.draft`, text, { mode });
    renameSync(`${file}.draft`, file);
  }
  return pair.private;
}
