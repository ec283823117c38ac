/** Looks at this host for `checks.ts`. Changes nothing that lasts, never rejects, and takes about a second. */
import { execFile } from 'node:child_process';
import { constants, existsSync, readFileSync, statSync } from 'node:fs';
import { copyFile, mkdtemp, rm, statfs, writeFile } from 'node:fs/promises';
import { arch, freemem, platform } from 'node:os';
import { dirname, join } from 'node:path';
import { hostMemoryMiB } from '../server.ts';
import { knownAccelerator } from '../vm/accelerator.ts';
import { SANDBOX } from '../vm/arguments.ts';
import { findCgroups } from '../vm/cgroup.ts';
import { findTool, run } from '../vm/command.ts';
import { inspectHost } from '../vm/host.ts';
import { inspectJail } from '../vm/jail.ts';
import type { HostFacts } from './checks.ts';

const MIB = 1024 * 1024;
const DEADLINE_MS = 10_000;

export async function hostFacts({ stateDir, cacheDir }: { stateDir: string; cacheDir: string }): Promise<HostFacts> {
  const qemu = await findTool('qemu-system-x86_64');
  const [host, jail, qemuVersion, qemuSandbox, accelerator, freeStateMiB, freeCacheMiB, reflink, tunnel] =
    await Promise.all([
      inspectHost(),
      inspectJail(),
      qemu && firstLine(qemu, '--version'),
      qemu === undefined ? 'not installed' : sandboxFault(qemu),
      knownAccelerator(cacheDir),
      freeMiB(stateDir),
      freeMiB(cacheDir),
      sharesBlocks(stateDir),
      findTool('cloudflared'),
    ]);
  const cgroups = findCgroups();
  return {
    platform: `${platform()} ${arch()}`,
    nodeVersion: process.version,
    missingTools: host.missing,
    installCommand: host.installCommand,
    qemuVersion,
    qemuSandbox,
    accelerator,
    jail,
    cgroups: 'why' in cgroups ? cgroups : cgroups.version,
    ptraceScope: ptraceScope(),
    memoryMiB: hostMemoryMiB(),
    freeMemoryMiB: Math.floor(availableMemory() / MIB),
    freeStateMiB,
    freeCacheMiB,
    hasImages: existsSync(join(cacheDir, 'base')),
    reflink,
    stateMode: statSync(stateDir, { throwIfNoEntry: false })?.mode,
    cloudflared: tunnel && (await firstLine(tunnel, '--version')),
  };
}

async function firstLine(file: string, ...args: string[]): Promise<string | undefined> {
  const text = await run(file, args, { code: 'host-unsupported', timeoutMs: DEADLINE_MS }).catch(() => '');
  return text.split('\n')[0] || undefined;
}

/** Starts a QEMU without a machine in the sandbox, and asks it to leave. */
function sandboxFault(qemu: string): Promise<true | string> {
  const args = ['-M', 'none', '-nodefaults', '-no-user-config', '-display', 'none', '-sandbox', SANDBOX];
  args.push('-chardev', 'stdio,id=qmp', '-mon', 'chardev=qmp,mode=control');
  return new Promise((resolve) => {
    const child = execFile(qemu, args, { timeout: DEADLINE_MS }, (error, _out, complaint) => {
      resolve(error === null ? true : complaint.trim().split('\n').at(-1) || error.message);
    });
    child.stdin?.on('error', () => undefined);
    child.stdin?.write('{"execute":"qmp_capabilities"}{"execute":"quit"}\n');
  });
}

/** Of the file system that the folder lies on, or will. */
async function freeMiB(folder: string): Promise<number | undefined> {
  try {
    const { bavail, bsize } = await statfs(existing(folder));
    return Math.floor((bavail * bsize) / MIB);
  } catch {
    return undefined;
  }
}

function existing(folder: string): string {
  return existsSync(folder) || dirname(folder) === folder ? folder : existing(dirname(folder));
}

/** Whether files of this folder share blocks; of one that is not there yet, those of the folder that it will be made in. */
async function sharesBlocks(stateDir: string): Promise<boolean | undefined> {
  let folder: string | undefined;
  try {
    folder = await mkdtemp(join(existing(stateDir), '.moorage-doctor-'));
    await writeFile(join(folder, 'a'), Buffer.alloc(4096, 1));
  } catch {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
    return undefined;
  }
  const shared = await copyFile(join(folder, 'a'), join(folder, 'b'), constants.COPYFILE_FICLONE_FORCE).then(
    () => true,
    () => false,
  );
  await rm(folder, { recursive: true, force: true });
  return shared;
}

function ptraceScope(): number {
  try {
    return Number(readFileSync('/proc/sys/kernel/yama/ptrace_scope', 'utf8'));
  } catch {
    return 0;
  }
}

/** What can be had without swapping: caches count as free. */
function availableMemory(): number {
  try {
    const kib = /^MemAvailable:\s*(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
    return kib === undefined ? freemem() : Number(kib) * 1024;
  } catch {
    return freemem();
  }
}
