/**
 * What a host needs to run machines, and how to get what it lacks. Only looks and, when told to, installs.
 */
import { findTool, run } from './command.ts';
import { MachineError } from './error.ts';

const PACKAGES = ['qemu-system-x86', 'erofs-utils', 'e2fsprogs'] as const;
const TOOLS = ['qemu-system-x86_64', 'mkfs.erofs', 'mke2fs', 'dpkg', 'apt-get'] as const;

/** The one line that a person can paste to make a Debian or Ubuntu host ready. */
export const INSTALL_COMMAND = `sudo apt-get update && sudo apt-get install -y --no-install-recommends ${PACKAGES.join(' ')}`;
/** What to answer when a tool is missing. */
export const INSTALL_HINT = `Install it with: ${INSTALL_COMMAND}`;

export interface HostReport {
  ok: boolean;
  /** Missing tools by name; `linux-x86_64` stands for an unsupported platform. */
  missing: string[];
  installCommand: string;
}

/** Looks for everything that building images and running machines needs. Takes a few milliseconds; never throws. */
export async function inspectHost(): Promise<HostReport> {
  const missing: string[] = [];
  if (process.platform !== 'linux' || process.arch !== 'x64') missing.push('linux-x86_64');
  for (const tool of TOOLS) if ((await findTool(tool)) === undefined) missing.push(tool);
  return { ok: missing.length === 0, missing, installCommand: INSTALL_COMMAND };
}

/**
 * Installs the missing packages as root or through passwordless sudo, reporting apt's lines. Rejects with
 * `host-unsupported` where apt cannot help and with `install-failed` (naming the command to paste) otherwise.
 */
export async function installHost(progress: (line: string) => void): Promise<void> {
  const report = await inspectHost();
  if (report.missing.includes('linux-x86_64') || report.missing.includes('apt-get')) {
    throw new MachineError(
      'host-unsupported',
      'machines need an x86_64 Linux host with apt (Debian, Ubuntu); on others use "runtime": "process" or "url"',
    );
  }
  if (report.ok) return;
  const root = process.getuid?.() === 0;
  const apt = async (args: string[]) => {
    const [file, ...prefix] = root ? ['apt-get'] : ['sudo', '-n', 'apt-get'];
    await run(file ?? 'apt-get', [...prefix, ...args], {
      code: 'install-failed',
      env: { DEBIAN_FRONTEND: 'noninteractive' },
      timeoutMs: 900_000,
      onLine: progress,
    });
  };
  try {
    await apt(['update']);
    await apt(['install', '-y', '--no-install-recommends', ...PACKAGES]);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MachineError('install-failed', `${why}\nRun it yourself: ${INSTALL_COMMAND}`, { cause });
  }
}
