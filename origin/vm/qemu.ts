/**
 * Machines on this host's QEMU: finds out what the host offers, boots them, and finds those that sleep.
 *
 * Invariants: one QEMU per folder; a QEMU dies with the agent (where setpriv exists) or is evicted before the folder is used
 * again; a boot discards the folder's image before anything runs. The life of one machine is `qemu-machine.ts`.
 */
import { readFileSync } from 'node:fs';
import { type Accelerator, probeAccelerator } from './accelerator.ts';
import { qemuArguments, tscKhzFrom } from './arguments.ts';
import type { ChannelState } from './channel.ts';
import { findTool, requireTool, run } from './command.ts';
import { diskPath, ensureDisk, evictLeftover, sweepDisks } from './disk.ts';
import type { MachineDriver, MachineSpec, Recalled } from './driver.ts';
import { MachineError } from './error.ts';
import { fingerprintOf, qemuIdentity } from './fingerprint.ts';
import { INSTALL_HINT } from './host.ts';
import { DEADLINES, type MachineHost, QemuMachine } from './qemu-machine.ts';
import { Snapshot } from './snapshot.ts';

export interface QemuDriverOptions {
  cacheDir: string;
  /** Skips the KVM probe. */
  accelerator?: 'kvm' | 'tcg';
  /** False leaves a QEMU running when the agent dies; the next boot then ends it. Default true. */
  dieWithAgent?: boolean;
}

/** Machines on this host's QEMU. Also says which accelerator it uses and why (asked once per kernel). */
export class QemuDriver implements MachineDriver {
  readonly #options: QemuDriverOptions;
  readonly #probes = new Map<string, Promise<Accelerator>>();
  readonly #busy = new Set<string>();
  #version: Promise<string> | undefined;

  constructor(options: QemuDriverOptions) {
    this.#options = options;
  }

  /** The accelerator for machines with this kernel and initrd. Rejects with `host-tool-missing` without QEMU. */
  accelerator(image: { kernel: string; initrd: string }): Promise<Accelerator> {
    const forced = this.#options.accelerator;
    if (forced !== undefined) return Promise.resolve({ accelerator: forced, reason: `${forced} was asked for` });
    const key = `${image.kernel} ${image.initrd}`;
    const known = this.#probes.get(key);
    if (known !== undefined) return known;
    const probe = requireTool('qemu-system-x86_64', INSTALL_HINT).then((qemu) =>
      probeAccelerator({ cacheDir: this.#options.cacheDir, qemu, kernel: image.kernel, initrd: image.initrd }),
    );
    probe.catch(() => this.#probes.delete(key));
    this.#probes.set(key, probe);
    return probe;
  }

  async boot(spec: MachineSpec, progress: (step: string) => void, signal?: AbortSignal): Promise<QemuMachine> {
    return await this.#alone(spec, async () => {
      const host = await this.#host(spec);
      if (await evictLeftover(spec.dir)) progress('ended a machine that a dead agent left behind');
      await ensureDisk(spec.dir, spec.diskMiB);
      const deadline = Date.now() + DEADLINES[host.accelerator].boot;
      for (let attempt = 1; ; attempt += 1) {
        if (signal?.aborted) throw new MachineError('boot-aborted', `the boot of "${spec.key}" was cancelled`);
        const { memory, discarded } = await host.snapshot.begin(spec.memoryMiB * 1024 * 1024);
        if (discarded) progress('discarded what it had in memory when it slept');
        progress(host.accelerator === 'kvm' ? 'booting' : 'booting (software emulation)');
        const machine = new QemuMachine(host);
        try {
          await machine.boot(memory, deadline, signal);
          return machine;
        } catch (error) {
          const hung = host.accelerator === 'tcg' && attempt === 1 && !machine.alive && !signal?.aborted;
          machine.kill();
          await machine.gone;
          if (!hung || !(error instanceof MachineError) || error.code !== 'boot-timeout') throw error;
          progress('the emulated guest hung while starting; booting it once more');
        }
      }
    });
  }

  async isAsleep(dir: string): Promise<boolean> {
    await evictLeftover(dir);
    if (Snapshot.exists(dir)) return true;
    await sweepDisks(dir);
    await new Snapshot(dir, diskPath(dir)).sweep([]);
    return false;
  }

  async recall(spec: MachineSpec): Promise<Recalled | undefined> {
    if (!Snapshot.exists(spec.dir)) return undefined;
    let carry: unknown;
    const machine = await this.#alone(spec, async () => {
      const host = await this.#host(spec);
      await evictLeftover(spec.dir);
      const manifest = await host.snapshot.manifest();
      carry = manifest.carry;
      return new QemuMachine(host, manifest.channel as ChannelState);
    });
    return { machine, carry };
  }

  /** Runs `make` unless the folder's machine is in use; it is in use until the machine that was made is gone. */
  async #alone(spec: MachineSpec, make: () => Promise<QemuMachine>): Promise<QemuMachine> {
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(spec.hostname)) {
      throw new MachineError('boot-aborted', `"${spec.hostname}" is not a host name: use letters, digits and hyphens`);
    }
    if (this.#busy.has(spec.dir)) {
      throw new MachineError('machine-busy', `machine "${spec.key}" already runs or boots in this process`);
    }
    this.#busy.add(spec.dir);
    try {
      const machine = await make();
      void machine.gone.then(() => this.#busy.delete(spec.dir));
      return machine;
    } catch (error) {
      this.#busy.delete(spec.dir);
      throw error;
    }
  }

  async #host(spec: MachineSpec): Promise<MachineHost> {
    const qemu = await requireTool('qemu-system-x86_64', INSTALL_HINT);
    const setpriv = this.#options.dieWithAgent === false ? undefined : await findTool('setpriv');
    const { accelerator } = await this.accelerator(spec.image);
    this.#version ??= run(qemu, ['--version'], { code: 'qemu-failed' }).then((text) => text.split('\n')[0] ?? '');
    const version = await this.#version;
    const disk = diskPath(spec.dir);
    const tscKhz = tscKhzFrom(readFileSync('/proc/cpuinfo', 'utf8'));
    const common = { spec, accelerator, disk, tscKhz, readOnlyMemory: opensReadOnly(version) };
    const prefix = setpriv === undefined ? [qemu] : [setpriv, '--pdeathsig', 'KILL', '--no-new-privs', '--', qemu];
    return {
      spec,
      accelerator,
      snapshot: new Snapshot(spec.dir, disk),
      command: (memory, incoming) => [...prefix, ...qemuArguments({ ...common, memory, incoming })],
      fingerprint: fingerprintOf(qemuIdentity(qemu, version), [
        ...qemuArguments({ ...common, memory: '', incoming: true }),
        spec.image.kernel,
        spec.image.initrd,
      ]),
    };
  }
}

/** Whether this QEMU can open a memory file for reading only and still let the guest write its copy (8.2). */
export function opensReadOnly(version: string): boolean {
  const [major = 0, minor = 0] = (/version (\d+)\.(\d+)/.exec(version) ?? []).slice(1).map(Number);
  return major > 8 || (major === 8 && minor >= 2);
}
