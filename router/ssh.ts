/** Owns how `ssh` of the configuration becomes a running way in: its keys, its files and its address. */
import { join, resolve } from 'node:path';
import type { Log } from '../origin/log.ts';
import { keysOfTeams } from '../origin/shell/authorized-keys.ts';
import { loadHostKey } from '../origin/shell/host-key.ts';
import { type RunningSsh, startSsh } from '../origin/shell/ssh-server.ts';
import type { Visits } from '../origin/shell/visits.ts';
import type { SshConfig } from '../shared/config/ssh.ts';
import { ConfigError } from '../shared/config.ts';
import { RouterError } from './error.ts';

export interface SshPlace {
  readonly stateDir: string;
  readonly configDir: string;
  readonly visits: Visits;
  readonly log: Log;
}

/** @throws ConfigError for a key that is none, RouterError `address_unusable`. */
export async function openSsh(config: SshConfig, { stateDir, configDir, visits, log }: SshPlace): Promise<RunningSsh> {
  const { listen, authorizedKeys } = config;
  try {
    const ssh = await startSsh({
      listen: listen === undefined ? undefined : addressOf(listen),
      hostKey: loadHostKey(stateDir, log),
      authorizedKeysPath:
        authorizedKeys === undefined ? join(stateDir, 'authorized_keys') : resolve(configDir, authorizedKeys),
      teams: teamsOf(config),
      visits,
      log,
    });
    if (ssh.port > 0) log.info(`machines can be entered by SSH: ssh -p ${ssh.port} <server>@127.0.0.1`);
    return ssh;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') throw error;
    throw new RouterError(
      'address_unusable',
      `ssh.listen: ${listen} cannot be listened at (${code}). Choose another port.`,
    );
  }
}

function teamsOf({ teams }: SshConfig) {
  try {
    return keysOfTeams(teams);
  } catch (error) {
    throw new ConfigError([(error as Error).message]);
  }
}

function addressOf(text: string): { host: string; port: number } {
  const at = text.lastIndexOf(':');
  return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
}
