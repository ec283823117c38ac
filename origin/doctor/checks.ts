/**
 * Owns what `moorage doctor` says: which of the things that Moorage can use hold on this host. Pure; `facts.ts` looks.
 *
 * A check is `ok`, `missing` with why and what to do, or `unknown` with when it will be known. `needed` tells whether the
 * configuration cannot be served without it: that alone, missing, is a failure. Everything else costs speed, isolation or a
 * limit, and says which.
 */
import { dropsUser, type JailFacts } from '../vm/jail.ts';

export interface Check {
  /** Stable name, for programs. */
  readonly id: string;
  readonly state: 'ok' | 'missing' | 'unknown';
  readonly needed: boolean;
  /** What was found. */
  readonly found: string;
  /** What it costs and what to do, of a check that is missing; of an unknown one how to know. */
  readonly advice?: string;
}

/** What was found on the host. */
export interface HostFacts {
  readonly platform: string;
  readonly nodeVersion: string;
  /** As `inspectHost` reports them. */
  readonly missingTools: readonly string[];
  readonly installCommand: string;
  /** First line of `qemu-system-x86_64 --version`. */
  readonly qemuVersion: string | undefined;
  /** Whether that QEMU takes the sandbox that machines are given, else what it said. */
  readonly qemuSandbox: true | string;
  /** Of the last boot of a guest kernel on this boot of the host, or why /dev/kvm cannot be opened. */
  readonly accelerator: { readonly accelerator: 'kvm' | 'tcg'; readonly reason: string } | undefined;
  readonly jail: JailFacts;
  /** Version of the control groups, or why there are none. */
  readonly cgroups: 1 | 2 | { readonly why: string };
  /** Of kernel.yama.ptrace_scope; 0 where there is no such thing. */
  readonly ptraceScope: number;
  readonly memoryMiB: number;
  readonly freeMemoryMiB: number;
  /** Of the file systems of the state folder and the images. */
  readonly freeStateMiB: number | undefined;
  readonly freeCacheMiB: number | undefined;
  readonly hasImages: boolean;
  /** Whether files of the state folder, or of the one that it will be made in, can share blocks; undefined where nothing can be written. */
  readonly reflink: boolean | undefined;
  /** Permission bits of the state folder; undefined where there is none yet. */
  readonly stateMode: number | undefined;
  readonly cloudflared: string | undefined;
}

/** What the configuration asks for. */
export interface Wanted {
  /** Whether any server runs in a microVM. */
  readonly machines: boolean;
  readonly largestMachineMiB: number;
  /** Of all machines' disks when they are full. */
  readonly disksMiB: number;
  readonly budgetMiB: number;
}

const MINIMUM_NODE = 20;
/** Packages, kernel, base and some applications. */
const IMAGES_MIB = 1024;
const STATE_MIB = 256;
const WRITABLE = 'Name a folder that you may write in with --state.';

export function checksOf(facts: HostFacts, wanted: Wanted): Check[] {
  const checks = [node(facts), state(facts, wanted), cloudflared(facts)];
  if (!wanted.machines) return checks;
  return [...checks, tools(facts), ...(facts.qemuVersion === undefined ? [] : qemu(facts)), ...disks(facts, wanted)];
}

/** Whether the configuration can be served. */
export const isFit = (checks: readonly Check[]): boolean =>
  checks.every(({ state, needed }) => state !== 'missing' || !needed);

function node({ nodeVersion }: HostFacts): Check {
  const isNew = Number.parseInt(nodeVersion.replace(/^v/, ''), 10) >= MINIMUM_NODE;
  return check('node', isNew, `Node ${nodeVersion}`, `Install Node ${MINIMUM_NODE} or newer.`, true);
}

function tools({ platform, missingTools, installCommand }: HostFacts): Check {
  const isLinux = !missingTools.includes('linux-x86_64') && !missingTools.includes('apt-get');
  return check(
    'tools',
    missingTools.length === 0,
    missingTools.length === 0
      ? `${platform} with QEMU and the tools that build images`
      : `lacks ${missingTools.join(', ')}`,
    isLinux
      ? `Install them: ${installCommand}`
      : 'MicroVMs need Linux on x86-64 with apt (Debian, Ubuntu). Elsewhere: "runtime": "process" or a "url".',
    true,
  );
}

function qemu(facts: HostFacts): Check[] {
  return [
    sandbox(facts),
    kvm(facts),
    sleeping(facts),
    user(facts),
    namespaces(facts),
    privileges(facts),
    groups(facts),
  ];
}

function sandbox({ qemuVersion, qemuSandbox }: HostFacts): Check {
  return check(
    'qemu-sandbox',
    qemuSandbox === true,
    `${qemuVersion}${qemuSandbox === true ? ', with its seccomp sandbox' : `: ${qemuSandbox}`}`,
    "Install a QEMU that was built with seccomp, such as the distribution's.",
    true,
  );
}

function kvm({ accelerator }: HostFacts): Check {
  if (accelerator === undefined) {
    return unknown(
      'kvm',
      '/dev/kvm opens; whether a guest boots on it is not known',
      'The first "moorage up" tries it.',
    );
  }
  const advice = 'Machines are emulated: just as isolated, many times slower.';
  return check('kvm', accelerator.accelerator === 'kvm', accelerator.reason, advice);
}

/** As `GuestMemory` needs it: root, or a tracer that is an ancestor. */
function sleeping({ jail, ptraceScope }: HostFacts): Check {
  const allowed = jail.isRoot ? ptraceScope < 3 : ptraceScope < 2;
  return check(
    'hibernation',
    allowed,
    allowed ? "the agent may read a machine's memory" : `kernel.yama.ptrace_scope is ${ptraceScope}`,
    'Idle machines are paused and keep their memory. To hibernate them: sysctl kernel.yama.ptrace_scope=1',
  );
}

function user(facts: HostFacts): Check {
  const { jail, accelerator } = facts;
  if (!jail.isRoot) {
    return check(
      'machine-user',
      false,
      'machines run as your user, each in a folder that only you may enter',
      'A QEMU that a guest took over could read your files. Run Moorage as root (a service) to give each machine a user of its own.',
    );
  }
  const drops = dropsUser(jail, accelerator?.accelerator ?? 'kvm');
  return check(
    'machine-user',
    drops,
    drops ? 'each machine runs as a user that nobody else is, in a folder that nobody else may enter' : whyRoot(jail),
    'Machines run as root, without capabilities. Correct this to give each a user of its own.',
  );
}

function whyRoot({ setpriv, hasUsers }: JailFacts): string {
  if (setpriv === undefined) return 'setpriv is not installed (package util-linux)';
  if (!hasUsers) return 'this container has no user ids from 1879048192 to 2147483646';
  return '/dev/kvm is for root alone: give it to a group (chgrp kvm /dev/kvm; chmod 660 /dev/kvm)';
}

function namespaces({ jail }: HostFacts): Check {
  return check(
    'namespaces',
    jail.unshare !== undefined,
    jail.unshare === undefined ? 'namespaces cannot be made' : 'QEMU has no network, IPC or host name of the host',
    "A QEMU that a guest took over could use the host's network. Allow user namespaces (kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile), or run as root.",
  );
}

function privileges({ jail }: HostFacts): Check {
  return check(
    'privileges',
    jail.setpriv !== undefined,
    jail.setpriv === undefined
      ? 'setpriv is not installed'
      : 'QEMU has no capabilities, gains no privileges, and dies with the agent',
    'A QEMU outlives an agent that crashes until the next one starts. Install util-linux.',
  );
}

function groups({ cgroups }: HostFacts): Check {
  const found = typeof cgroups === 'number';
  return check(
    'cgroup',
    found,
    found ? `version ${cgroups} limits memory, processor time and threads of each QEMU` : cgroups.why,
    `Machines are limited by the guest's size alone. To limit QEMU too: systemd-run --user --scope -p Delegate=yes moorage up (or run as root).`,
  );
}

function disks(facts: HostFacts, { largestMachineMiB, budgetMiB, disksMiB }: Wanted): Check[] {
  const { freeCacheMiB, freeStateMiB, hasImages, reflink, memoryMiB, freeMemoryMiB } = facts;
  const checks = [
    check(
      'memory',
      budgetMiB <= memoryMiB && largestMachineMiB <= budgetMiB,
      `${gib(budgetMiB)} of ${gib(memoryMiB)} for machines that are awake (${gib(freeMemoryMiB)} are free now); the largest needs ${gib(largestMachineMiB)}`,
      largestMachineMiB > budgetMiB
        ? 'The largest machine runs alone. Raise "origin.memory" or lower its "limits.memory".'
        : 'More is promised than the host has: lower "origin.memory".',
    ),
    freeStateMiB === undefined
      ? unknown('disk-room', 'the file system of the state folder does not say what is free', WRITABLE)
      : check(
          'disk-room',
          freeStateMiB >= disksMiB,
          `${gib(freeStateMiB)} are free, machines' disks may grow to ${gib(disksMiB)}`,
          'A full disk stops the machines that write. Make room, or lower limits.disk of machines that are not made yet.',
        ),
    reflink === undefined
      ? unknown('reflink', 'nothing can be written where the state folder is to be: not tried', WRITABLE)
      : check(
          'reflink',
          reflink,
          reflink ? 'copies of a disk share its blocks' : 'copies of a disk are whole copies',
          'Forks take longer and more room. Put the state folder on XFS or Btrfs.',
        ),
  ];
  if (!hasImages && freeCacheMiB !== undefined) {
    const advice = `Images need ${gib(IMAGES_MIB)}. Make room, or name another folder with MOORAGE_CACHE.`;
    checks.push(
      check('image-room', freeCacheMiB >= IMAGES_MIB, `${gib(freeCacheMiB)} are free for images`, advice, true),
    );
  }
  return checks;
}

function state({ stateMode, freeStateMiB }: HostFacts, { machines }: Wanted): Check {
  if (stateMode !== undefined && (stateMode & 0o077) !== 0) {
    const mode = (stateMode & 0o777).toString(8);
    return check(
      'state',
      false,
      `others may enter the state folder (mode ${mode})`,
      'Start Moorage once, or: chmod 700',
    );
  }
  const isFull = freeStateMiB !== undefined && freeStateMiB < STATE_MIB;
  const found = stateMode === undefined ? 'the state folder will be made' : 'nobody else may enter the state folder';
  return check(
    'state',
    !isFull,
    isFull ? `${freeStateMiB} MiB are free for the state folder` : found,
    `Make room: keys, ${machines ? 'disks, ' : ''}sessions and logs need ${STATE_MIB} MiB at least.`,
    isFull,
  );
}

function cloudflared({ cloudflared }: HostFacts): Check {
  const advice =
    'Only needed to be reached by an edge at Cloudflare: developers.cloudflare.com/tunnel has the package.';
  return check('cloudflared', cloudflared !== undefined, cloudflared ?? 'not installed', advice);
}

function check(id: string, ok: boolean, found: string, advice: string, needed = false): Check {
  return { id, state: ok ? 'ok' : 'missing', needed, found, ...(ok ? {} : { advice }) };
}

function unknown(id: string, found: string, advice: string): Check {
  return { id, state: 'unknown', needed: false, found, advice };
}

const gib = (mib: number): string => (mib >= 1024 ? `${(mib / 1024).toFixed(1)} GiB` : `${mib} MiB`);
