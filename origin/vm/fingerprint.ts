/**
 * What must be the same for a sleeping machine's image to be resumed: QEMU itself, the processor, and the machine as its
 * command line describes it (disks and images are found by digest, so their paths stand for their content).
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
