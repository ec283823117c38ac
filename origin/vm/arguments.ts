/**
 * The QEMU command line of a machine. Pure: everything that depends on the host is passed in.
 *
 * A `microvm` without network: disks, a serial pipe, entropy, nothing else to attack. QMP is file descriptor 3 and the
 * guest's channel 4, both inherited socketpairs: no socket file and no port that another user could reach. The serial
 * console goes to stdout, where the agent keeps the last of it. Files that machines share are inherited too, and the disk
 * is named from QEMU's working folder: whoever QEMU runs as need not be able to go anywhere else.
 */
import type { MachineImage, MachineSpec } from './driver.ts';

export interface ArgumentOptions {
  spec: MachineSpec;
  accelerator: 'kvm' | 'tcg';
  /** Its name in the working folder. */
  disk: string;
  /** Of the guest: 32 hexadecimal digits. */
  machineId: string;
  /** Frequency of the host's time stamp counter in kHz. */
  tscKhz: number | undefined;
  /** Whether this QEMU can open the memory file for reading only (8.2 and later). */
  readOnlyMemory: boolean;
  /** Wait for the state of a sleeping machine instead of booting. */
  incoming?: boolean;
}

/** Forbids QEMU what it never needs after start, should a guest take it over. */
export const SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';
/** The x86-64-v2 level, which prebuilt native modules may assume, on top of what the emulator offers by default. */
const EMULATED_CPU = 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm';

/**
 * The files that QEMU inherits from descriptor `FIRST_FILE` on, in this order. `memory` is the file over which the
 * guest's memory is mapped, privately: QEMU never writes to it.
 */
export function inheritedFiles({ image }: MachineSpec, memory: string): string[] {
  return [memory, image.kernel, image.initrd, ...layersOf(image).map(([, path]) => path)];
}

/** What the root file system is made of, the lowest first, and the container's root beside it. */
function layersOf({ base, system, app, container }: MachineImage): [name: string, path: string][] {
  const layers: [string, string | undefined][] = [
    ['base', base],
    ['system', system],
    ['app', app],
    ['container', container],
  ];
  return layers.filter((layer): layer is [string, string] => layer[1] !== undefined);
}

/** 5 is the state of a machine that wakes. */
export const FIRST_FILE = 6;
const MEMORY = FIRST_FILE;
const KERNEL = FIRST_FILE + 1;
const INITRD = FIRST_FILE + 2;
const LAYERS = FIRST_FILE + 3;
/** Opens the file behind a descriptor anew: its own mode counts, not who may reach its folder. */
const opened = (descriptor: number): string => `/proc/self/fd/${descriptor}`;
/** Translated code, in MiB: what QEMU would take by itself is an eighth of the host's memory. */
const TRANSLATED_MIB = 256;

export function qemuArguments(options: ArgumentOptions): string[] {
  const { spec, accelerator, disk, readOnlyMemory, incoming } = options;
  const { image } = spec;
  const args = [
    '-M',
    // A core dump of QEMU must not hold the guest's memory; sharing equal pages tells guests about each other.
    'microvm,memory-backend=ram,dump-guest-core=off,mem-merge=off',
    '-accel',
    accelerator === 'kvm' ? 'kvm' : `tcg,tb-size=${TRANSLATED_MIB}`,
    '-cpu',
    accelerator === 'kvm' ? 'host' : EMULATED_CPU,
  ];
  args.push('-name', `moorage-${spec.hostname}`, '-m', `${spec.memoryMiB}M`, '-smp', String(spec.cpus));
  args.push('-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-sandbox', SANDBOX);
  const backend = { 'qom-type': 'memory-backend-file', id: 'ram', size: spec.memoryMiB * 1024 * 1024 };
  const access = readOnlyMemory ? { readonly: true, rom: 'off' } : {};
  args.push('-object', JSON.stringify({ ...backend, 'mem-path': opened(MEMORY), share: false, ...access }));
  if (incoming) {
    // The state that our snapshots hold has no configuration section; the guest's kernel is in its memory.
    args.push('-S', '-incoming', 'defer', '-global', 'migration.send-configuration=off');
  } else {
    args.push('-kernel', opened(KERNEL), '-initrd', opened(INITRD));
    args.push('-append', kernelArguments(options));
  }
  args.push('-chardev', 'socket,id=qmp,fd=3', '-mon', 'chardev=qmp,mode=control');
  args.push('-chardev', 'stdio,id=console,signal=off', '-serial', 'chardev:console');
  for (const [index, [name]] of layersOf(image).entries()) args.push(...readOnlyDisk(name, LAYERS + index));
  args.push(
    '-blockdev',
    JSON.stringify({ driver: 'raw', 'node-name': 'data', file: { driver: 'file', filename: disk } }),
  );
  args.push('-device', 'virtio-blk-device,drive=data,serial=data');
  args.push('-object', 'rng-random,id=rng,filename=/dev/urandom', '-device', 'virtio-rng-device,rng=rng');
  args.push('-device', 'virtio-serial-device', '-chardev', 'socket,id=agent,fd=4');
  args.push('-device', 'virtserialport,chardev=agent,name=moorage');
  return args;
}

/** Immutable and shared by machines, hence opened without a lock. The guest finds it by its serial number. */
function readOnlyDisk(name: string, descriptor: number): string[] {
  const set = descriptor - FIRST_FILE;
  const file = { driver: 'file', filename: `/dev/fdset/${set}`, locking: 'off' };
  const node = { driver: 'raw', 'node-name': name, 'read-only': true, file };
  const inherit = ['-add-fd', `fd=${descriptor},set=${set}`];
  return [...inherit, '-blockdev', JSON.stringify(node), '-device', `virtio-blk-device,drive=${name},serial=${name}`];
}

function kernelArguments({ spec, accelerator, machineId, tscKhz }: ArgumentOptions): string {
  const list = [
    'console=ttyS0',
    'quiet',
    'loglevel=4',
    'reboot=t',
    'panic=-1',
    'cryptomgr.notests',
    `moorage.hostname=${spec.hostname}`,
    `moorage.machine_id=${machineId}`,
    ...(spec.pids === undefined ? [] : [`moorage.pids=${spec.pids}`]),
  ];
  if (accelerator === 'tcg') {
    // Emulated timers make the kernel's calibration of the counter fail at times, and the guest then hangs for ever.
    list.push('tsc=reliable', 'clocksource=tsc');
    if (tscKhz !== undefined) list.push(`tsc_early_khz=${tscKhz}`);
  }
  return list.join(' ');
}

/** The counter's frequency in kHz from /proc/cpuinfo: the nominal one in the model name, else the current one. */
export function tscKhzFrom(cpuinfo: string): number | undefined {
  const nominal = /^model name\s*:.*@\s*([\d.]+)\s*GHz/m.exec(cpuinfo)?.[1];
  if (nominal !== undefined) return Math.round(Number(nominal) * 1e6);
  const current = /^cpu MHz\s*:\s*([\d.]+)/m.exec(cpuinfo)?.[1];
  return current === undefined ? undefined : Math.round(Number(current) * 1e3);
}
