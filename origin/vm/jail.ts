/**
 * What stands around a QEMU besides its own seccomp sandbox: a user of its own, no capabilities, namespaces, its death
 * with the agent. `jailOf` is pure; `inspectJail` looks at the host once.
 *
 * As root every machine runs as a user that nobody else is: a number made of its folder's path, from a range that no
 * distribution hands out (systemd, "UIDS-GIDS"). Its folder stays root's, so a QEMU that was taken over can neither make
 * nor replace a file there: the agent, which is root, would follow a link. It may enter by its group and open its own
 * disk; everything shared is handed to it as open files. Without root all machines share the agent's user, and only
 * namespaces and the loss of privileges remain.
 */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { findTool, run } from './command.ts';

/** First of 2^28 user ids that no distribution uses. */
const FIRST_USER = 0x7000_0000;
const USERS = 0x0fff_ffff;

export interface JailFacts {
  readonly isRoot: boolean;
  /** Whether this user namespace has our range of user ids. */
  readonly hasUsers: boolean;
  readonly setpriv: string | undefined;
  /** Absent where namespaces cannot be made. */
  readonly unshare: string | undefined;
  /** Who may open /dev/kvm; undefined where there is none. */
  readonly kvm: { readonly mode: number; readonly gid: number } | undefined;
}

/** Who a QEMU runs as. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface Jail {
  /** Stands in front of QEMU's command. It replaces itself: the process id stays. */
  readonly prefix: readonly string[];
  /** Absent: the agent's own user. */
  readonly owner: Owner | undefined;
}

/** Whether the agent can give each machine a user of its own. */
export function dropsUser(facts: JailFacts, accelerator: 'kvm' | 'tcg'): boolean {
  return facts.isRoot && facts.hasUsers && facts.setpriv !== undefined && kvmGroups(facts, accelerator) !== undefined;
}

/** The groups with which another user opens /dev/kvm; undefined when none would do. */
function kvmGroups({ kvm }: JailFacts, accelerator: 'kvm' | 'tcg'): readonly number[] | undefined {
  if (accelerator === 'tcg' || kvm === undefined || (kvm.mode & 0o006) === 0o006) return [];
  return (kvm.mode & 0o060) === 0o060 && kvm.gid !== 0 ? [kvm.gid] : undefined;
}

/** The jail of the machine in `dir`. With `outlives` QEMU does not die with the agent. */
export function jailOf(facts: JailFacts, dir: string, accelerator: 'kvm' | 'tcg', outlives = false): Jail {
  const { isRoot, setpriv, unshare } = facts;
  const prefix: string[] = [];
  if (unshare !== undefined) {
    prefix.push(unshare, ...(isRoot ? [] : ['--user', '--map-current-user']), ...NAMESPACES, '--');
  }
  if (setpriv === undefined) return { prefix, owner: undefined };
  const owner = dropsUser(facts, accelerator) ? ownerOf(dir) : undefined;
  prefix.push(setpriv, '--no-new-privs');
  if (!outlives) prefix.push('--pdeathsig', 'KILL');
  if (isRoot) prefix.push('--inh-caps', '-all', '--bounding-set', '-all');
  if (owner !== undefined) {
    const groups = kvmGroups(facts, accelerator) ?? [];
    prefix.push('--reuid', String(owner.uid), '--regid', String(owner.gid));
    prefix.push(...(groups.length > 0 ? ['--groups', groups.join(',')] : ['--clear-groups']));
  }
  return { prefix: [...prefix, '--'], owner };
}

const NAMESPACES = ['--net', '--ipc', '--uts'] as const;

function ownerOf(dir: string): Owner {
  const number = createHash('sha256').update(dir).digest().readUInt32BE(0) % USERS;
  return { uid: FIRST_USER + number, gid: FIRST_USER + number };
}

/** What this host lets the agent do. Never rejects. */
export async function inspectJail(): Promise<JailFacts> {
  const isRoot = process.getuid?.() === 0;
  const [setpriv, unshare] = await Promise.all([findTool('setpriv'), findTool('unshare')]);
  return {
    isRoot,
    hasUsers: hasRange(readFileSync('/proc/self/uid_map', 'utf8')),
    setpriv,
    unshare: unshare !== undefined && (await works(unshare, isRoot)) ? unshare : undefined,
    kvm: kvmAccess(),
  };
}

/** Whether a user namespace (/proc/self/uid_map: inside, outside, count) has the whole range. */
export function hasRange(uidMap: string): boolean {
  return uidMap.split('\n').some((line) => {
    const [first = Number.NaN, , count = 0] = line.trim().split(/\s+/).map(Number);
    return first <= FIRST_USER && first + count >= FIRST_USER + USERS;
  });
}

async function works(unshare: string, isRoot: boolean): Promise<boolean> {
  const args = [...(isRoot ? [] : ['--user', '--map-current-user']), ...NAMESPACES, '--', 'true'];
  return await run(unshare, args, { code: 'host-unsupported', timeoutMs: 10_000 }).then(
    () => true,
    () => false,
  );
}

function kvmAccess(): JailFacts['kvm'] {
  const status = statSync('/dev/kvm', { throwIfNoEntry: false });
  return status && { mode: status.mode, gid: status.gid };
}
