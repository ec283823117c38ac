/** What this host is, and what a process or a folder takes of it. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import type { HostSize } from './options.ts';

export interface Host {
  readonly date: string;
  readonly accelerator: 'kvm' | 'emulated';
  readonly processor: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly kernel: string;
  readonly qemu: string;
  readonly node: string;
  /** Of the last minute, at the beginning. */
  readonly load: number;
  /** Of the folder that machines are in. */
  readonly fileSystem: string;
}

export const hostSize = (): HostSize => ({
  cpus: availableParallelism(),
  memoryMiB: Math.floor(Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY) / 1024 / 1024),
});

export function describeHost(accelerator: 'kvm' | 'tcg', folder: string): Host {
  const tool = (file: string, ...args: string[]) => execFileSync(file, args, { encoding: 'utf8' });
  return {
    ...hostSize(),
    date: new Date().toISOString().slice(0, 16),
    accelerator: accelerator === 'kvm' ? 'kvm' : 'emulated',
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    kernel: release(),
    qemu: /version (\S+)/.exec(tool('qemu-system-x86_64', '--version'))?.[1] ?? 'unknown',
    node: process.versions.node,
    load: loadavg()[0] ?? 0,
    fileSystem: tool('stat', '-f', '-c', '%T', folder).trim(),
  };
}

/** Memory of a process: pages that it shares count by its share. Bytes, of /proc/PID/smaps_rollup. */
export function memoryOf(rollup: string): { proportional: number; own: number } {
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(rollup)?.[1] ?? Number.NaN) * 1024;
  return { proportional: field('Pss'), own: field('Private_Clean') + field('Private_Dirty') };
}

export const memoryOfProcess = (pid: number) => memoryOf(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));

/** Bytes that a folder takes on the disk: its own, and those of files that other folders have too. */
export function diskOf(folder: string): { own: number; shared: number } {
  const size = { own: 0, shared: 0 };
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const { nlink, blocks, isFile } = statOf(join(folder, name));
    size[isFile && nlink > 1 ? 'shared' : 'own'] += blocks * 512;
  }
  return size;
}

function statOf(path: string) {
  const status = statSync(path);
  return { nlink: status.nlink, blocks: status.blocks, isFile: status.isFile() };
}
