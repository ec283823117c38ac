/**
 * A machine's own folder: its disk, and the lock that keeps it to one QEMU.
 *
 * `disk.ext4` is raw and sparse; it appears complete or not at all. `qemu.pid` names the running QEMU and the agent that
 * owns it: a QEMU whose agent has died is killed before the disk is opened again, one whose agent lives makes the boot
 * fail with `machine-busy`. QEMU's own lock on the disk is the last line behind both.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readlinkSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { requireTool, run } from './command.ts';
import { MachineError } from './error.ts';
import { INSTALL_HINT } from './host.ts';
import { processArguments, processStart } from './pid.ts';

const KILL_DEADLINE_MS = 10_000;

interface PidRecord {
  pid: number;
  start: string;
  agentPid: number;
  agentStart: string;
}

export const DISK = 'disk.ext4';
export const diskPath = (dir: string): string => join(dir, DISK);

/** The machine's disk, made when absent. Resolves with its path. */
export async function ensureDisk(dir: string, diskMiB: number): Promise<string> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const disk = diskPath(dir);
  if (existsSync(disk)) return disk;
  const tool = await requireTool('mke2fs', INSTALL_HINT);
  const temporary = join(dir, `disk.${randomUUID()}.tmp`);
  try {
    const file = await open(temporary, 'wx', 0o600);
    await file.truncate(diskMiB * 1024 * 1024);
    await file.close();
    // Inode tables stay unwritten (the guest mounts with noinit_itable): a new disk costs kilobytes, not megabytes.
    const options = 'lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0';
    await run(tool, ['-q', '-F', '-t', 'ext4', '-m', '0', '-E', options, '-L', 'moorage', temporary], {
      code: 'disk-unusable',
    });
    const made = await open(temporary, 'r+');
    await made.sync();
    await made.close();
    await rename(temporary, disk);
  } finally {
    await rm(temporary, { force: true });
  }
  return disk;
}

/** What tells the guest of this folder from every other (machine-id(5)): made once, and anew for a copy. */
export function machineIdOf(dir: string): string {
  const path = join(dir, 'machine-id');
  if (existsSync(path)) return readFileSync(path, 'utf8').trim();
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const id = randomUUID().replaceAll('-', '');
  writeFileSync(path, `${id}\n`, { mode: 0o600 });
  return id;
}

/** Removes disks that were never finished. */
export async function sweepDisks(dir: string): Promise<void> {
  const names = await readdir(dir).catch(() => []);
  for (const name of names) if (/^disk\..*\.tmp$/.test(name)) await rm(join(dir, name), { force: true });
}

/** Notes which QEMU now runs on this folder. Must follow the spawn in the same turn of the event loop. */
export function claim(dir: string, pid: number): void {
  const record: PidRecord = {
    pid,
    start: processStart(pid) ?? '',
    agentPid: process.pid,
    agentStart: processStart(process.pid) ?? '',
  };
  writeFileSync(join(dir, 'qemu.pid'), JSON.stringify(record), { mode: 0o600 });
}

export function release(dir: string): void {
  rmSync(join(dir, 'qemu.pid'), { force: true });
}

/**
 * Makes sure that no QEMU runs on this folder: kills and awaits one that a dead agent left behind. Rejects with
 * `machine-busy` when a living agent owns it. True when something was killed.
 */
export async function evictLeftover(dir: string): Promise<boolean> {
  const record = readRecord(dir);
  if (record === undefined) return false;
  const alive = () => processStart(record.pid) === record.start;
  if (!alive() || !isOurs(dir, record.pid)) {
    release(dir);
    return false;
  }
  if (processStart(record.agentPid) === record.agentStart) {
    throw new MachineError('machine-busy', `the machine in ${dir} already runs, owned by process ${record.agentPid}`);
  }
  process.kill(record.pid, 'SIGKILL');
  const deadline = Date.now() + KILL_DEADLINE_MS;
  while (alive()) {
    if (Date.now() > deadline) {
      throw new MachineError('machine-busy', `QEMU process ${record.pid} on ${dir} does not die; end it and try again`);
    }
    await sleep(10);
  }
  release(dir);
  return true;
}

/** As `evictLeftover`, for every machine below `folder`: also for those that are not configured any more. */
export async function evictLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) await evictLeftover(join(folder, name));
}

/** A QEMU's working folder is its machine's, from before it is QEMU. */
function isOurs(dir: string, pid: number): boolean {
  try {
    if (readlinkSync(`/proc/${pid}/cwd`) !== realpathSync(dir)) return false;
  } catch {
    return false;
  }
  return processArguments(pid).some((argument) => basename(argument).startsWith('qemu-system-'));
}

function readRecord(dir: string): PidRecord | undefined {
  try {
    return JSON.parse(readFileSync(join(dir, 'qemu.pid'), 'utf8')) as PidRecord;
  } catch {
    // No file: nothing was left. A torn file: QEMU's lock on the disk still protects it.
    return undefined;
  }
}
