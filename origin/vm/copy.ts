/**
 * Copies of machines, each a hibernated machine in a folder of its own: of one that runs, and of one that sleeps (a template).
 *
 * A copy shares the memory file (a hard link: such a file never changes once it is written) and has the pages that were
 * changed since, the device state and the disk of its own. It is made in `.<name>.making` beside its folder and renamed when
 * all of it has reached the disk: a crash at any step leaves no copy or a whole one, and never touches what it is made from.
 * A machine that is copied while it runs stands still only while its changed pages are taken and its disk is cloned; where
 * disks cannot share blocks it is copied ahead, and again in that moment if the machine has written to it since.
 */
import { spawn } from 'node:child_process';
import { constants, existsSync } from 'node:fs';
import { chmod, copyFile, link, mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChannelState } from './channel.ts';
import { diskPath, machineIdOf } from './disk.ts';
import type { CopyCost, CopyOptions } from './driver.ts';
import { MachineError } from './error.ts';
import type { Run } from './guest-memory.ts';
import { lengthOf, type Pages } from './memory-files.ts';
import { identityOfDisk, type MappedMemory, Snapshot } from './snapshot.ts';
import { TakenPages } from './taken-pages.ts';

/** More than this is written while the guest waits: it is not worth the agent's memory, in bytes. */
const MAX_TAKEN = 512 * 1024 * 1024;
/** Two writes to a file may have the same time when they are nearer to each other: two ticks of the slowest kernel clock. */
const TIMESTAMP_MS = 20;
/** Number of a copy's own files; the shared memory file is number 1. */
const NUMBER = 2;
const SHARED = 'memory-1.ram';

/** A running machine as its copier needs it. `halt` and `goOn` reject when the machine is lost. */
export interface Parent {
  /** Its memory as seen from outside; the copier closes it. */
  memory(): Outside;
  readonly disk: string;
  readonly mapped: MappedMemory;
  readonly memoryBytes: number;
  /** Its processes stop and its disk is written; nothing is said any more. */
  silence(): Promise<void>;
  stop(): Promise<void>;
  /** Resolves with the file that has them, which is the copier's. */
  saveDevices(): Promise<string>;
  channel(): ChannelState;
  /** Its processors run, and its processes speak. */
  goOn(): Promise<void>;
}

/** The memory of a guest, and what it has changed since its memory file was mapped. */
export interface Outside extends Pages {
  changed(): readonly Run[];
  close(): void;
}

/** A hibernated machine: its folder, and what must be the same for it to be resumed. */
export interface Source {
  readonly dir: string;
  readonly fingerprint: string;
}

/** Where a copy of a running machine goes. */
export interface Child extends Source {
  /** Of a memory file, for whoever QEMU runs as. */
  readonly memoryMode: number;
}

/** Copies a running machine. Rejects with `fork-failed`, or what `halt` and `goOn` reject with. */
export async function copyRunning(parent: Parent, child: Child, options: CopyOptions): Promise<CopyCost> {
  return await whole(child.dir, options.files, async (dir) => {
    const { fingerprint, memoryMode } = child;
    const snapshot = new Snapshot(dir, diskPath(dir), { owner: undefined, memoryMode });
    const mapped = await share(parent.mapped, snapshot);
    const memory = parent.memory();
    let cloner: Cloner | undefined;
    try {
      cloner = await clonerFor(parent.disk, dir, true);
      const { clone, disk } = cloner;
      const size = Math.min(lengthOf(memory.changed()), MAX_TAKEN);
      const room = Buffer.alloc(Math.ceil(size * 1.1)).fill(1);
      const taken = await whileSilent(parent, async () => {
        await rename(await parent.saveDevices(), snapshot.path(`devices-${NUMBER}`));
        const cloned = clone();
        cloned.catch(() => undefined);
        const changed = memory.changed();
        const pages =
          lengthOf(changed) > MAX_TAKEN ? undefined : new TakenPages(memory, changed, parent.mapped.path, room);
        const files = pages ? undefined : await snapshot.write(NUMBER, written(parent, mapped, memory, changed));
        await cloned;
        return { pages, files, channel: parent.channel(), carry: options.carry(), keep: options.keep() };
      });
      const { pages, channel, carry, keep, pausedMs, silentMs } = taken;
      const files = taken.files ?? (await snapshot.write(NUMBER, written(parent, mapped, pages as TakenPages)));
      pages?.close();
      await snapshot.complete(NUMBER, files, { fingerprint, channel, carry, copy: { keep } });
      if (files.isNew) await rm(snapshot.path(SHARED), { force: true });
      const memoryBytes = (files.isNew ? lengthOf(files.sealed.runs) : 0) + files.delta.bytes;
      return { pausedMs, silentMs, memoryBytes, disk };
    } finally {
      memory.close();
      cloner?.dismiss();
    }
  });
}

/** Copies a hibernated machine that nobody uses. Rejects with `snapshot-unusable`, `fork-failed`. */
export async function copyAsleep(from: Source, to: Source, { files }: Pick<CopyOptions, 'files'>): Promise<CopyCost> {
  return await whole(to.dir, files, async (dir) => {
    const disk = diskPath(from.dir);
    const source = new Snapshot(from.dir, disk);
    const manifest = await source.open(from.fingerprint);
    await source.read(manifest);
    const snapshot = new Snapshot(dir, diskPath(dir));
    const { number, memory, delta, devices, channel } = manifest;
    for (const { name } of [memory, delta, devices]) await link(source.path(name), snapshot.path(name));
    const cloner = await clonerFor(disk, dir, false);
    await cloner.clone();
    const said = { fingerprint: to.fingerprint, channel, carry: undefined, copy: { keep: [] } };
    await snapshot.complete(number, { sealed: memory, delta }, said);
    return { pausedMs: 0, silentMs: 0, memoryBytes: 0, disk: cloner.disk };
  });
}

/** Removes copies below `folder` that were never finished. */
export async function sweepUnfinished(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => []))
    if (/^\..*\.making$/.test(name)) await rm(join(folder, name), { recursive: true, force: true });
}

async function whole(
  dir: string,
  files: Readonly<Record<string, string>>,
  make: (dir: string) => Promise<CopyCost>,
): Promise<CopyCost> {
  if (existsSync(dir)) throw new MachineError('fork-failed', `there is a machine "${basename(dir)}" already`);
  const making = join(dirname(dir), `.${basename(dir)}.making`);
  try {
    await rm(making, { recursive: true, force: true });
    await mkdir(join(making, 'sleep'), { recursive: true, mode: 0o700 });
    const cost = await make(making);
    machineIdOf(making);
    for (const [name, text] of Object.entries(files))
      await writeFile(join(making, name), text, { mode: 0o600, flush: true });
    await syncFolder(making);
    await rename(making, dir);
    await syncFolder(dirname(dir));
    return cost;
  } catch (cause) {
    await rm(making, { recursive: true, force: true }).catch(() => undefined);
    if (cause instanceof MachineError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MachineError('fork-failed', `it could not be copied: ${why}`, { cause });
  }
}

/** Stops the machine for as long as `take` lasts; it goes on whatever becomes of that. */
async function whileSilent<T>(
  parent: Parent,
  take: () => Promise<T>,
): Promise<T & { pausedMs: number; silentMs: number }> {
  const silent = performance.now();
  await parent.silence();
  const paused = performance.now();
  let taken: T;
  try {
    await parent.stop();
    taken = await take();
  } finally {
    await parent.goOn();
  }
  const now = performance.now();
  return { ...taken, pausedMs: now - paused, silentMs: now - silent };
}

function written(parent: Parent, mapped: MappedMemory, memory: Pages, changed = (memory as TakenPages).runs) {
  return { memory, mapped, changed: changed as readonly Run[], bytes: parent.memoryBytes };
}

/** The machine's memory file, as the copy has it. One that boots has none worth sharing. */
async function share({ path, sealed }: MappedMemory, snapshot: Snapshot): Promise<MappedMemory> {
  const own = { number: 1, path: snapshot.path(SHARED) };
  if (sealed === undefined) return own;
  await link(path, own.path);
  return { ...own, sealed: { ...sealed, name: SHARED } };
}

interface Cloner {
  readonly disk: CopyCost['disk'];
  clone(): Promise<void>;
  /** It is not wanted (any more). */
  dismiss(): void;
}

/**
 * How a disk is copied into `dir`: sharing its blocks where the file system can, else without its holes. One that a machine
 * uses meanwhile is copied ahead.
 */
async function clonerFor(disk: string, dir: string, isUsed: boolean): Promise<Cloner> {
  const target = diskPath(dir);
  const probe = join(dir, 'probe');
  await writeFile(probe, 'probe');
  try {
    await copyFile(probe, `${probe}.2`, constants.COPYFILE_FICLONE_FORCE);
    const clone = () => copyFile(disk, target, constants.COPYFILE_FICLONE_FORCE);
    return { disk: 'shared', clone, dismiss: () => undefined };
  } catch {
    const cloner = isUsed ? await copyAhead(disk, target) : sparseCopy(disk, target);
    return { disk: 'copied', ...cloner };
  } finally {
    await rm(probe, { force: true });
    await rm(`${probe}.2`, { force: true });
  }
}

/** Copies it now. Only if it is written to after that, it is copied again when the copy is wanted. */
async function copyAhead(disk: string, target: string): Promise<Omit<Cloner, 'disk'>> {
  const before = await identityOfDisk(disk);
  // A write that begins from here on has a later time,
  await sleep(TIMESTAMP_MS);
  // and one that has begun is over: like it, a change of mode takes the file's lock (Linux, filesystems/locking).
  await chmod(disk, (await stat(disk)).mode & 0o7777);
  await sparseCopy(disk, target).clone();
  const again = sparseCopy(disk, target);
  return {
    clone: async () => {
      if ((await identityOfDisk(disk)) !== before) await again.clone();
    },
    dismiss: again.dismiss,
  };
}

/** Started at once and held until it is wanted: the machine that is copied does not wait for a process to be made. */
function sparseCopy(disk: string, target: string): Omit<Cloner, 'disk'> {
  const args = ['-c', 'read -r go && exec cp --reflink=never --sparse=always "$0" "$1"', disk, target];
  const child = spawn('sh', args, { stdio: ['pipe', 'ignore', 'pipe'] });
  let complaint = '';
  child.stderr.on('data', (data: Buffer) => {
    complaint = (complaint + data.toString()).slice(-1_000);
  });
  child.stdin.on('error', () => undefined);
  const over = new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(complaint.trim() || `cp ended with ${code}`)),
    );
  });
  over.catch(() => undefined);
  return {
    clone: async () => {
      child.stdin.end('go\n');
      await over;
    },
    dismiss: () => void child.stdin.end(),
  };
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
