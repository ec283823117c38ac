/**
 * What must be the same for a sleeping machine's image to be resumed: QEMU itself, the processor, and the machine as its
 * command line describes it. An image's path is a digest of its recipe; one that was removed and built anew may hold newer
 * packages, so that its size and time belong to it.
 */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';

/** Whatever QEMU's own version string does not tell apart, its file does. */
export function qemuIdentity(path: string, version: string): string {
  const { size, mtimeMs } = statSync(path);
  return `${version} ${size} ${Math.floor(mtimeMs)}`;
}

/** Model and features of the host's processor. */
export function processorOf(cpuinfo: string): string {
  const field = (name: string) => new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(cpuinfo)?.[1] ?? '';
  return `${field('model name')} ${field('flags').split(' ').sort().join(' ')}`;
}

/** `args` without what differs from one start to the next. */
export function fingerprintOf(qemu: string, args: readonly string[]): string {
  const processor = processorOf(readFileSync('/proc/cpuinfo', 'utf8'));
  return createHash('sha256')
    .update(JSON.stringify([qemu, processor, args]))
    .digest('hex');
}

/** A file that may have been replaced by another of its name. What is no file stands for itself. */
export function fileIdentity(path: string): string {
  const stats = statSync(path, { throwIfNoEntry: false });
  return stats === undefined ? path : `${path} ${stats.size} ${stats.mtimeMs}`;
}
