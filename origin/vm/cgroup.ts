/**
 * The kernel's limits on a QEMU as a whole, where control groups can be written: memory, processor time, threads. The guest's
 * own size bounds what the guest can use; this bounds QEMU, should a guest take it over.
 *
 * One group per machine, `moorage/<key>-<digest of its folder>`, below the agent's own group or else the topmost one, in
 * each of the three hierarchies (v1) or in the one (v2, when it may delegate the three controllers).
 * Invariant: a failure costs the limit and never the machine.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const CONTROLLERS = ['memory', 'pids', 'cpu'] as const;
type Controller = (typeof CONTROLLERS)[number];

export interface QemuLimits {
  readonly memoryMiB: number;
  /** Processors' worth of time. */
  readonly cpus: number;
  /** Threads. */
  readonly pids: number;
}

/** Where machines' groups are made. `roots` has a folder for each controller: in v2 always the same. */
export interface Cgroups {
  readonly version: 1 | 2;
  readonly roots: Readonly<Record<Controller, string>>;
}

/** What QEMU may use beside the guest's memory, in MiB: itself, and translated code where it emulates. */
const OVERHEAD_MIB = { kvm: 192, tcg: 640 } as const;
/** QEMU's main loop and its helpers, beside the virtual processors. */
const OWN_CPUS = 0.5;
const OWN_THREADS = 128;
const PERIOD_US = 100_000;

/** What a QEMU with this guest may use. Pure. */
export function qemuLimits(guest: { memoryMiB: number; cpus: number }, accelerator: 'kvm' | 'tcg'): QemuLimits {
  return {
    memoryMiB: guest.memoryMiB + OVERHEAD_MIB[accelerator],
    cpus: guest.cpus + OWN_CPUS,
    pids: guest.cpus + OWN_THREADS,
  };
}

/** The files that set the limits of one group, with what is written to them. Pure. */
export function limitFiles(version: 1 | 2, { memoryMiB, cpus, pids }: QemuLimits): [Controller, string, string][] {
  const bytes = String(memoryMiB * 1024 * 1024);
  const quota = String(Math.round(cpus * PERIOD_US));
  return version === 2
    ? [
        ['memory', 'memory.max', bytes],
        ['memory', 'memory.swap.max', '0'],
        ['memory', 'memory.oom.group', '1'],
        ['pids', 'pids.max', String(pids)],
        ['cpu', 'cpu.max', `${quota} ${PERIOD_US}`],
      ]
    : [
        ['memory', 'memory.limit_in_bytes', bytes],
        ['pids', 'pids.max', String(pids)],
        ['cpu', 'cpu.cfs_period_us', String(PERIOD_US)],
        ['cpu', 'cpu.cfs_quota_us', quota],
      ];
}

/** Files without which the limit still holds: kernels lack them. */
const OPTIONAL = new Set(['memory.swap.max', 'memory.oom.group']);

/** Puts QEMU `pid` into its machine's group. @returns what removes the group when it has ended. @throws the system's error. */
export function confine(cgroups: Cgroups, where: { key: string; dir: string }, pid: number, limits: QemuLimits) {
  const digest = createHash('sha256').update(where.dir).digest('hex').slice(0, 8);
  const folders = [...new Set(Object.values(cgroups.roots))].map((root) => join(root, `${where.key}-${digest}`));
  for (const folder of folders) mkdirSync(folder, { recursive: true });
  for (const [controller, file, value] of limitFiles(cgroups.version, limits)) {
    const path = join(cgroups.roots[controller], `${where.key}-${digest}`, file);
    if (!OPTIONAL.has(file) || existsSync(path)) writeFileSync(path, value);
  }
  for (const folder of folders) writeFileSync(join(folder, 'cgroup.procs'), String(pid));
  return (): void => {
    for (const folder of folders) {
      try {
        rmdirSync(folder);
      } catch {
        // Its last thread is not quite gone: the next start of the machine uses the group again.
      }
    }
  };
}

/** Where machines' groups can be made on this host, or why nowhere. */
export function findCgroups(proc = '/proc/self', mounted = '/sys/fs/cgroup'): Cgroups | { readonly why: string } {
  let memberships: ReadonlyMap<string, string>;
  try {
    memberships = membershipsOf(readFileSync(join(proc, 'cgroup'), 'utf8'));
  } catch {
    return { why: 'this kernel has no control groups' };
  }
  const failures: string[] = [];
  for (const find of [findV1, findV2]) {
    try {
      const found = find(mounted, memberships);
      if (found) return found;
    } catch (error) {
      failures.push((error as NodeJS.ErrnoException).code ?? String(error));
    }
  }
  return {
    why:
      failures.length > 0 ? `they cannot be written here (${failures.join(', ')})` : 'none is mounted that could limit',
  };
}

/** Lines of /proc/PID/cgroup, `<id>:<controllers>:<path>`: the path for each controller, '' for v2's. */
export function membershipsOf(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    for (const controller of controllers.split(',')) found.set(controller, path);
  }
  return found;
}

function findV1(mounted: string, memberships: ReadonlyMap<string, string>): Cgroups | undefined {
  if (!CONTROLLERS.every((name) => existsSync(join(mounted, name, 'cgroup.procs')))) return undefined;
  const root = (name: Controller) => writable(join(mounted, name), memberships.get(name) ?? '/');
  return { version: 1, roots: { memory: root('memory'), pids: root('pids'), cpu: root('cpu') } };
}

function findV2(mounted: string, memberships: ReadonlyMap<string, string>): Cgroups | undefined {
  const controllers = join(mounted, 'cgroup.controllers');
  if (!existsSync(controllers)) return undefined;
  const path = (memberships.get('') ?? '/').replace(/\/agent$/, '');
  const own = existsSync(join(mounted, path)) ? join(mounted, path) : mounted;
  // A group that has processes cannot delegate (cgroup-v2, "No Internal Process Constraint"): the agent steps aside.
  if (own !== mounted) {
    mkdirSync(join(own, 'agent'), { recursive: true });
    writeFileSync(join(own, 'agent', 'cgroup.procs'), String(process.pid));
  }
  for (const folder of [own, join(own, 'moorage')]) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'cgroup.subtree_control'), CONTROLLERS.map((name) => `+${name}`).join(' '));
  }
  const root = join(own, 'moorage');
  accessSync(root, constants.W_OK);
  return { version: 2, roots: { memory: root, pids: root, cpu: root } };
}

/** The folder `moorage` below the agent's own group, or below the topmost one where that path is not mounted. */
function writable(hierarchy: string, path: string): string {
  const own = existsSync(join(hierarchy, path)) ? join(hierarchy, path) : hierarchy;
  const folder = join(own, 'moorage');
  mkdirSync(folder, { recursive: true });
  // It may be another user's, from an earlier agent.
  accessSync(folder, constants.W_OK);
  return folder;
}
