/**
 * Is KVM usable here? Opening /dev/kvm proves nothing: on some nested hosts it opens and then aborts or hangs with a
 * real kernel. So the real guest kernel is booted under a deadline, and only the line that our initrd prints counts.
 * The verdict is kept in the cache; another boot of the host, kernel or QEMU asks again.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, statSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ALIVE_MARKER, PROBE_ARGUMENT } from '../images/initrd.ts';
import { run } from './command.ts';

export interface Accelerator {
  accelerator: 'kvm' | 'tcg';
  /** One sentence for people: why this one. */
  reason: string;
}

export interface ProbeOptions {
  cacheDir: string;
  /** Absolute path of qemu-system-x86_64. */
  qemu: string;
  /** The guest's kernel and initrd, whose paths contain their digests. */
  kernel: string;
  initrd: string;
  /** A working KVM takes well below a second; a hanging one takes this long, once. Default 4000. */
  deadlineMs?: number;
}

const MAX_OUTPUT = 64 * 1024;

/** The accelerator to use. Never rejects because KVM does not work: that is the answer `tcg`. */
export async function probeAccelerator(options: ProbeOptions): Promise<Accelerator> {
  const unusable = openFailure();
  if (unusable !== undefined) return slow(unusable);
  const version = (await run(options.qemu, ['--version'], { code: 'qemu-failed' })).split('\n')[0] ?? '';
  const key = [bootId(), version, options.kernel, options.initrd].join(' ');
  const file = verdictFile(options.cacheDir);
  const known = await readVerdict(file, (stored) => stored === key);
  if (known !== undefined) return known;
  const verdict = await bootProbe(options);
  await mkdir(options.cacheDir, { recursive: true, mode: 0o700 });
  const temporary = `${file}.${process.pid}`;
  await writeFile(temporary, JSON.stringify({ key, ...verdict }));
  await rename(temporary, file);
  return verdict;
}

/** What is known without booting anything; undefined when only a boot could tell. */
export async function knownAccelerator(cacheDir: string): Promise<Accelerator | undefined> {
  const unusable = openFailure();
  if (unusable !== undefined) return slow(unusable);
  return await readVerdict(verdictFile(cacheDir), (stored) => stored.startsWith(`${bootId()} `));
}

const verdictFile = (cacheDir: string): string => join(cacheDir, 'accelerator.json');
const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

const slow = (reason: string): Accelerator => ({ accelerator: 'tcg', reason });

function openFailure(): string | undefined {
  try {
    closeSync(openSync('/dev/kvm', 'r+'));
    return undefined;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return 'this host has no /dev/kvm (enable virtualization, or nested virtualization)';
    if (code === 'EACCES') return deniedBy(statSync('/dev/kvm').mode);
    return `/dev/kvm cannot be opened (${code})`;
  }
}

/** What opens /dev/kvm to a user whom its permission bits keep out. */
export function deniedBy(mode: number): string {
  const forGroup = (mode & 0o060) === 0o060;
  return forGroup
    ? 'you may not open /dev/kvm: join its group (sudo usermod -aG kvm $USER) and log in again'
    : '/dev/kvm is for root alone: give it to a group that you are in (sudo chgrp kvm /dev/kvm; sudo chmod 660 /dev/kvm)';
}

async function readVerdict(file: string, trusted: (key: string) => boolean): Promise<Accelerator | undefined> {
  try {
    const stored = JSON.parse(await readFile(file, 'utf8')) as { key?: unknown } & Accelerator;
    if (trusted(String(stored.key))) return { accelerator: stored.accelerator, reason: stored.reason };
  } catch {
    // Absent or unreadable: ask KVM again.
  }
  return undefined;
}

function bootProbe(options: ProbeOptions): Promise<Accelerator> {
  const deadlineMs = options.deadlineMs ?? 4000;
  const args = ['-M', 'microvm', '-accel', 'kvm', '-cpu', 'host', '-m', '128', '-nodefaults', '-no-user-config'];
  args.push('-display', 'none', '-no-reboot', '-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console');
  args.push('-kernel', options.kernel, '-initrd', options.initrd);
  args.push('-append', `console=ttyS0 quiet reboot=t panic=-1 ${PROBE_ARGUMENT}`);
  return new Promise((resolve) => {
    const child = spawn(options.qemu, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let console = '';
    let complaint = '';
    const finish = (verdict: Accelerator) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      resolve(verdict);
    };
    const timer = setTimeout(() => {
      finish(slow(`/dev/kvm opens, but a guest kernel does not get anywhere within ${deadlineMs / 1000} s`));
    }, deadlineMs);
    child.stdout.on('data', (data: Buffer) => {
      console = (console + data.toString('latin1')).slice(-MAX_OUTPUT);
      if (console.includes(ALIVE_MARKER)) finish({ accelerator: 'kvm', reason: 'KVM boots the guest kernel' });
    });
    child.stderr.on('data', (data: Buffer) => {
      complaint = (complaint + data.toString('utf8')).slice(0, 300);
    });
    child.once('error', (error) => finish(slow(error.message)));
    // "close" comes after the last output, so a marker printed just before the exit still counts.
    child.once('close', (code, signal) => {
      const first = complaint.split('\n').find((line) => line.trim() !== '' && !line.includes('warning'));
      finish(
        slow(
          `/dev/kvm opens, but QEMU ends (${code ?? signal}) before the guest runs${first ? `: ${first.trim()}` : ''}`,
        ),
      );
    });
  });
}
