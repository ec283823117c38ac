/** Owns the key by which SSH clients know this origin: made once, kept in the state folder beside its public half. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import type { Log } from '../log.ts';

const NAME = 'ssh_host_ed25519_key';

/** Both halves in OpenSSH's format. */
export interface KeyPair {
  readonly private: string;
  readonly public: string;
}

/** The private key in OpenSSH's format. One that cannot be read, which no client can know, is replaced. */
export function loadHostKey(stateDir: string, log: Log): string {
  const path = join(stateDir, NAME);
  const stored = readIfThere(path);
  if (stored !== undefined && isKey(stored)) return stored;
  if (stored !== undefined) log.warn(`ssh: the host key in ${NAME} could not be read: another was made in its place`);
  const pair = makeKeyPair('moorage');
  for (const [file, text, mode] of [
    [`${path}.pub`, `${pair.public}\n`, 0o644],
    [path, pair.private, 0o600],
  ] as const) {
    writeFileSync(`${file}.draft`, text, { mode, flush: true });
    renameSync(`${file}.draft`, file);
  }
  return pair.private;
}

/**
 * An Ed25519 pair that ssh2 can read. Of the pairs that ssh2 makes, one of 256 lacks the leading zeros of its public
 * key, and nothing can read it: https://github.com/mscdex/ssh2/issues/1390.
 *
 * @throws Error when ten in a row cannot be read.
 */
export function makeKeyPair(
  comment: string,
  generate: (comment: string) => KeyPair = (name) => ssh2.utils.generateKeyPairSync('ed25519', { comment: name }),
): KeyPair {
  for (let tries = 0; tries < 10; tries += 1) {
    const pair = generate(comment);
    if (isKey(pair.private) && isKey(pair.public)) return pair;
  }
  throw new Error('ssh2 makes no key that it can read.');
}

const isKey = (text: string) => !(ssh2.utils.parseKey(text) instanceof Error);

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}
