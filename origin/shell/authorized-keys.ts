/**
 * Owns which public keys may enter which machines: the lines of an `authorized_keys` file, as sshd(8) describes it, and the
 * teams of the configuration. Pure.
 *
 * A line is `[options] type key [comment]`. `servers="notes,staging-*"` among the options limits the key to these servers;
 * without it the key enters all. Options that take away what is never given (`restrict`, `no-port-forwarding` …) are
 * accepted; a line with any other option is refused, since it would let in more than its writer meant.
 */
import { createHash } from 'node:crypto';
import ssh2 from 'ssh2';
import type { SshConfig } from '../../shared/config/ssh.ts';
import { passes } from '../../shared/glob.ts';

export interface AuthorizedKey {
  readonly key: ssh2.ParsedKey;
  /** Globs over servers' names. */
  readonly servers: readonly string[];
  /** For the log: the team or the key's comment, and its fingerprint. */
  readonly name: string;
}

/** Options that change nothing here, because what they forbid is not offered. */
const NEEDLESS = new Set(['restrict', 'no-port-forwarding', 'no-agent-forwarding', 'no-x11-forwarding', 'no-user-rc']);
const KEY_TYPE = /^(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521))$/;
/** `name` or `name="value"`, in which `\"` is a quote. */
const OPTION = /^([A-Za-z0-9@.-]+)(?:="((?:[^"\\]|\\.)*)")?(,|[ \t]+)/;

/** The keys of a file's text, and one sentence for each line that is of no use. */
export function parseAuthorizedKeys(text: string): { keys: AuthorizedKey[]; faults: string[] } {
  const keys: AuthorizedKey[] = [];
  const faults: string[] = [];
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    try {
      keys.push(parseLine(line));
    } catch (error) {
      faults.push(`line ${index + 1}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { keys, faults };
}

/** The keys that the configuration names. @throws Error naming the team whose key is none. */
export function keysOfTeams(teams: SshConfig['teams']): AuthorizedKey[] {
  return Object.entries(teams).flatMap(([team, { servers, keys }]) =>
    keys.map((text) => {
      const key = parseKey(text, `ssh.teams.${team}`);
      return { key, servers, name: `team ${team} (${fingerprintOf(key)})` };
    }),
  );
}

/** Who may enter `server` with this key, as it came over the wire. */
export function authorize(keys: readonly AuthorizedKey[], blob: Buffer, server: string): AuthorizedKey | undefined {
  return keys.find(({ key, servers }) => key.getPublicSSH().equals(blob) && passes(server, servers));
}

function parseLine(line: string): AuthorizedKey {
  let rest = line;
  let servers: readonly string[] = ['*'];
  if (!KEY_TYPE.test(line.split(/[ \t]/, 1)[0] ?? '')) {
    for (let more = true; more; ) {
      const [whole, name = '', value, end] = OPTION.exec(rest) ?? [];
      if (whole === undefined) throw new Error('it is no public key, and no list of options before one');
      if (name.toLowerCase() === 'servers' && value !== undefined) servers = globsOf(value);
      else if (!NEEDLESS.has(name.toLowerCase())) throw new Error(`the option "${name}" is not understood here`);
      rest = rest.slice(whole.length);
      more = end === ',';
    }
  }
  const key = parseKey(rest.trim(), 'this');
  return { key, servers, name: `${key.comment || 'a key'} (${fingerprintOf(key)})` };
}

function globsOf(value: string): string[] {
  const globs = value
    .split(',')
    .map((glob) => glob.trim())
    .filter((glob) => glob !== '');
  if (globs.length === 0) throw new Error('servers="" lets nobody in');
  return globs;
}

function parseKey(text: string, what: string): ssh2.ParsedKey {
  const key = KEY_TYPE.test(text.split(/[ \t]/, 1)[0] ?? '') ? ssh2.utils.parseKey(text) : undefined;
  if (key === undefined || key instanceof Error || Array.isArray(key) || key.isPrivateKey()) {
    throw new Error(`${what} is no public key of type ed25519, ecdsa or rsa`);
  }
  return key;
}

/** As `ssh-keygen -l` prints it. */
export function fingerprintOf(key: ssh2.ParsedKey): string {
  return `SHA256:${createHash('sha256').update(key.getPublicSSH()).digest('base64').replace(/=+$/, '')}`;
}
