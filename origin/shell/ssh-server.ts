/**
 * Owns the way into machines by SSH: `ssh notes@127.0.0.1 -p PORT`, where the user's name is the server whose machine is
 * entered. Off unless configured; on loopback, or over the control socket.
 *
 * Only public keys authenticate. A server that does not exist, one that the key may not enter and a key that nobody knows
 * get the same refusal. States of a connection: greeting -> authenticated -> closed. Bounds: connections, the time until
 * somebody is authenticated, attempts, sessions of a connection, and time in which nothing is said. The file of keys is read
 * for every connection, so that a key which was taken out lets nobody in any more.
 */
import { readFileSync, statSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import ssh2 from 'ssh2';
import type { Log } from '../log.ts';
import { type AuthorizedKey, authorize, parseAuthorizedKeys } from './authorized-keys.ts';
import { serveSession } from './ssh-session.ts';
import type { Visits } from './visits.ts';

export interface SshOptions {
  /** Absent: only what is handed to `accept`. */
  readonly listen?: { readonly host: string; readonly port: number } | undefined;
  /** OpenSSH's format. */
  readonly hostKey: string;
  /** May be absent: then only teams come in. */
  readonly authorizedKeysPath: string;
  readonly teams: readonly AuthorizedKey[];
  readonly visits: Pick<Visits, 'begin' | 'has'>;
  readonly log: Log;
}

export interface RunningSsh {
  /** Where it listens; 0 where it does not. */
  readonly port: number;
  /** Serves one connection that came another way. */
  accept(connection: Duplex): void;
  close(): Promise<void>;
}

const MAX_CONNECTIONS = 64;
const MAX_ATTEMPTS = 6;
const MAX_SESSIONS = 8;
const LOGIN_MS = 30_000;
const IDLE_MS = 12 * 3_600_000;
const MAX_KEYS_BYTES = 1024 * 1024;

/** @throws what `listen` throws, such as EADDRINUSE. */
export async function startSsh(options: SshOptions): Promise<RunningSsh> {
  const connections = new Set<Duplex>();
  const accept = (connection: Duplex): void => {
    if (connections.size >= MAX_CONNECTIONS) {
      connection.destroy();
      return;
    }
    connections.add(connection);
    connection.once('close', () => connections.delete(connection));
    connection.on('error', () => undefined);
    serveConnection(connection, options);
  };
  const server = options.listen ? await listen(options.listen, accept) : undefined;
  const address = server?.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    accept,
    close: async () => {
      const closed = new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
      for (const connection of connections) connection.destroy();
      await closed;
    },
  };
}

function listen(where: { host: string; port: number }, accept: (socket: Socket) => void): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer({ noDelay: true }, accept);
    server.once('error', reject);
    server.listen(where, () => resolve(server));
  });
}

function serveConnection(connection: Duplex, { hostKey, visits, log, teams, authorizedKeysPath }: SshOptions): void {
  const late = setTimeout(() => connection.destroy(), LOGIN_MS);
  connection.once('close', () => clearTimeout(late));
  // One server a connection: what it knows of a client is the connection that was given to it.
  const ssh = new ssh2.Server({ hostKeys: [hostKey], ident: 'moorage' }, (client) => {
    const keys = [...teams, ...readKeys(authorizedKeysPath, log)];
    let attempts = 0;
    let sessions = 0;
    let server: string | undefined;
    client.on('error', (error) => log.debug(`ssh: ${error.message}`));
    client.on('authentication', (context) => {
      attempts += 1;
      if (attempts > MAX_ATTEMPTS) {
        connection.destroy();
        return;
      }
      const known = context.method === 'publickey' && authorize(keys, context.key.data, context.username);
      if (!known || !visits.has(context.username) || !isProven(context, known)) {
        context.reject(['publickey']);
        return;
      }
      if (context.signature) {
        server = context.username;
        log.info(`ssh: ${known.name} entered "${server}"`);
      }
      context.accept();
    });
    client.once('ready', () => {
      clearTimeout(late);
      const idle = setTimeout(() => connection.destroy(), IDLE_MS);
      connection.once('close', () => clearTimeout(idle));
      client.on('session', (accept, reject) => {
        if (server === undefined || sessions >= MAX_SESSIONS) {
          reject();
          return;
        }
        sessions += 1;
        const session = accept();
        session.once('close', () => {
          sessions -= 1;
        });
        serveSession(session, { visits, server, onActivity: () => idle.refresh() });
      });
    });
  });
  ssh.on('error', (error: Error) => log.debug(`ssh: ${error.message}`));
  ssh.injectSocket(connection as Socket);
}

/** Without a signature the client only asks whether this key would do. SHA-1 proves nothing (RFC 8332, section 5.1). */
function isProven(context: ssh2.PublicKeyAuthContext, { key }: AuthorizedKey): boolean {
  if (context.key.algo === 'ssh-rsa' && context.signature && context.hashAlgo === undefined) return false;
  if (!context.signature || !context.blob) return true;
  return key.verify(context.blob, context.signature, context.hashAlgo) === true;
}

/** Whoever could write the file could let anybody in: such a file is not read. */
function readKeys(path: string, log: Log): AuthorizedKey[] {
  const about = statSync(path, { throwIfNoEntry: false });
  if (about === undefined) return [];
  const isOurs = about.uid === process.getuid?.() || about.uid === 0;
  if (!about.isFile() || !isOurs || (about.mode & 0o022) !== 0 || about.size > MAX_KEYS_BYTES) {
    log.warn('ssh: authorized_keys is not read: it must be a file of at most 1 MiB that only its owner can write');
    return [];
  }
  const { keys, faults } = parseAuthorizedKeys(readFileSync(path, 'utf8'));
  for (const fault of faults) log.warn(`ssh: authorized_keys, ${fault}`);
  return keys;
}
