/** What an image's configuration says about its process, as `docker run` reads it. Pure. */
import { posix } from 'node:path';
import type { Configuration } from './manifest.ts';
import { unusable } from './manifest.ts';

/** What is started in an image when nobody says otherwise. */
export interface RunConfiguration {
  entrypoint: string[];
  cmd: string[];
  env: Record<string, string>;
  uid: number;
  gid: number;
  /** Further groups. */
  groups: number[];
  /** Absolute. */
  workdir: string;
}

/** What Docker gives a process whose image names no search path. */
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The files of the image that name its users; empty where it has none. */
export interface Users {
  passwd: string;
  group: string;
}

/** Throws MachineError `image-build-failed` for a user that the image does not have. */
export function runConfigurationOf({ config }: Configuration, users: Users): RunConfiguration {
  const env: Record<string, string> = { PATH: DEFAULT_PATH };
  for (const line of config?.Env ?? []) {
    const at = line.indexOf('=');
    if (at > 0) env[line.slice(0, at)] = line.slice(at + 1);
  }
  const { home, ...user } = resolveUser(config?.User ?? '', users);
  return {
    entrypoint: config?.Entrypoint ?? [],
    cmd: config?.Cmd ?? [],
    env: { HOME: home, ...env },
    ...user,
    workdir: posix.resolve('/', config?.WorkingDir || '/'),
  };
}

interface User {
  uid: number;
  gid: number;
  groups: number[];
  home: string;
}

/** `USER` of a Dockerfile: name or number, and perhaps a group after a colon. */
export function resolveUser(text: string, { passwd, group }: Users): User {
  const [name = '', groupName] = (text || '0').split(':');
  const records = (file: string) => file.split('\n').map((line) => line.split(':'));
  const numeric = (value: string) => (/^\d{1,10}$/.test(value) ? Number(value) : undefined);
  const number = numeric(name);
  const known = records(passwd).find(
    ([login, , uid]) => login === name || (number !== undefined && Number(uid) === number),
  );
  const uid = number ?? numeric(known?.[2] ?? '');
  if (uid === undefined || uid >= 2 ** 32) throw unusable(`its user "${name}" is not in its /etc/passwd`);
  const home = known?.[5] || '/';
  if (groupName === undefined) {
    const login = known?.[0];
    const groups = records(group)
      .filter(([, , , members]) => login !== undefined && members?.split(',').includes(login))
      .flatMap(([, , gid]) => numeric(gid ?? '') ?? []);
    return { uid, gid: numeric(known?.[3] ?? '') ?? 0, groups, home };
  }
  const gid = numeric(groupName) ?? numeric(records(group).find(([title]) => title === groupName)?.[2] ?? '');
  if (gid === undefined) throw unusable(`its group "${groupName}" is not in its /etc/group`);
  return { uid, gid, groups: [], home };
}

/** As with `docker run --entrypoint`: a command replaces entrypoint and arguments, arguments alone the arguments. */
export function argvOf(image: RunConfiguration, command: string | undefined, args: readonly string[]): string[] {
  if (command !== undefined) return [command, ...args];
  const argv = [...image.entrypoint, ...(args.length > 0 ? args : image.cmd)];
  if (argv.length === 0) throw unusable('it says nothing about what to start: give "command"');
  return argv;
}
