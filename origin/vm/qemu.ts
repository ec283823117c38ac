/**
 * Machines on this host's QEMU: finds out what the host offers, boots them, and finds those that sleep.
 *
 * Invariants: one QEMU per folder; a QEMU dies with the agent (where setpriv exists) or is evicted before the folder is used
 * again; a boot discards the folder's image before anything runs. The life of one machine is `qemu-machine.ts`.
 */
import { chmodSync, chownSync, existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Accelerator, probeAccelerator } from './accelerator.ts';
import { inheritedFiles, qemuArguments, tscKhzFrom } from './arguments.ts';
import { type Cgroups, confine, findCgroups, qemuLimits } from './cgroup.ts';
import { requireTool, run } from './command.ts';
import { copyAsleep, sweepUnfinished } from './copy.ts';
import { DISK, diskPath, ensureDisk, evictLeftover, machineIdOf, sweepDisks } from './disk.ts';
import type { CopyCost, CopyOptions, MachineDriver, MachineSpec, Recalled } from './driver.ts';
import { MachineError } from './error.ts';
import { fileIdentity, fingerprintOf, qemuIdentity } from './fingerprint.ts';
import { INSTALL_HINT } from './host.ts';
import { dropsUser, inspectJail, type JailFacts, jailOf, type Owner } from './jail.ts';
import { DEADLINES, type MachineHost, QemuMachine } from './qemu-machine.ts';
import { FOLDER, Snapshot } from './snapshot.ts';

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
  #jail: Promise<JailFacts> | undefined;
  #cgroups: Cgroups | { readonly why: string } | undefined;

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

  /** What this host does not give to machines: each a few words for their owner. */
  async lacks(accelerator: 'kvm' | 'tcg'): Promise<string[]> {
    this.#jail ??= inspectJail();
    this.#cgroups ??= findCgroups();
    const facts = await this.#jail;
    return [
      ...(dropsUser(facts, accelerator) ? [] : ['a user of their own']),
      ...(facts.unshare === undefined ? ['namespaces'] : []),
      ...(facts.setpriv === undefined ? ['the loss of privileges'] : []),
      ...('why' in this.#cgroups ? ["control groups (only the guest's size limits them)"] : []),
    ];
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
          await machine.boot(memory, deadline, attempt > 1, signal);
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
      return new QemuMachine(host, manifest);
    });
    return { machine, carry };
  }

  async sweep(folder: string): Promise<void> {
    await sweepUnfinished(folder);
  }

  async copy(from: MachineSpec, to: MachineSpec, options: Pick<CopyOptions, 'files'>): Promise<CopyCost> {
    const [source, target] = await Promise.all([this.#setup(from), this.#setup(to)]);
    return await this.#alone(to, () =>
      copyAsleep(
        { dir: from.dir, fingerprint: source.fingerprint },
        { dir: to.dir, fingerprint: target.fingerprint },
        options,
      ),
    );
  }

  /** Runs `make` unless the folder's machine is in use; it is in use until the machine that was made, if it is one, is gone. */
  async #alone<T>(spec: MachineSpec, make: () => Promise<T>): Promise<T> {
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(spec.hostname)) {
      throw new MachineError('boot-aborted', `"${spec.hostname}" is not a host name: use letters, digits and hyphens`);
    }
    if (this.#busy.has(spec.dir)) {
      throw new MachineError('machine-busy', `machine "${spec.key}" already runs or boots in this process`);
    }
    this.#busy.add(spec.dir);
    const free = () => void this.#busy.delete(spec.dir);
    try {
      const made = await make();
      if (made instanceof QemuMachine) void made.gone.then(free);
      else free();
      return made;
    } catch (error) {
      free();
      throw error;
    }
  }

  async #host(spec: MachineSpec): Promise<MachineHost> {
    const { qemu, prefix, owner, common, fingerprint } = await this.#setup(spec);
    const { accelerator, readOnlyMemory } = common;
    this.#cgroups ??= findCgroups();
    const cgroups = 'why' in this.#cgroups ? undefined : this.#cgroups;
    const memoryMode = owner === undefined ? 0o600 : readOnlyMemory ? 0o644 : 0o666;
    const machineId = machineIdOf(spec.dir);
    return {
      spec,
      accelerator,
      disk: diskPath(spec.dir),
      machineId,
      snapshot: new Snapshot(spec.dir, diskPath(spec.dir), { owner, memoryMode }),
      command: (memory, incoming) => {
        grant(spec, owner);
        return {
          argv: [...prefix, qemu, ...qemuArguments({ ...common, machineId, incoming })],
          files: inheritedFiles(spec, memory),
          incoming,
          confine: cgroups && ((pid) => limit(cgroups, spec, pid, accelerator)),
        };
      },
      fingerprint,
      forCopy: (child, make) =>
        this.#alone(child, async () => {
          const { fingerprint } = await this.#setup(child);
          return await make({ dir: child.dir, fingerprint, memoryMode });
        }),
    };
  }

  /** How this host runs such a machine. Touches nothing of its folder. */
  async #setup(spec: MachineSpec) {
    const qemu = await requireTool('qemu-system-x86_64', INSTALL_HINT);
    const { accelerator } = await this.accelerator(spec.image);
    this.#version ??= run(qemu, ['--version'], { code: 'qemu-failed' }).then((text) => text.split('\n')[0] ?? '');
    const version = await this.#version;
    this.#jail ??= inspectJail();
    const { prefix, owner } = jailOf(await this.#jail, spec.dir, accelerator, this.#options.dieWithAgent === false);
    const tscKhz = tscKhzFrom(readFileSync('/proc/cpuinfo', 'utf8'));
    const common = { spec, accelerator, disk: DISK, tscKhz, readOnlyMemory: opensReadOnly(version) };
    const fingerprint = fingerprintOf(qemuIdentity(qemu, version), [
      ...qemuArguments({ ...common, machineId: '', incoming: true }),
      ...inheritedFiles(spec, String(owner?.uid ?? 'own')).map(fileIdentity),
    ]);
    return { qemu, prefix, owner, common, fingerprint };
  }
}

/**
 * Lets who QEMU runs as open what it opens by name: the disk is its own, the folders let it in by its group, and nobody
 * else. Kernel and initrd are opened anew, so everybody may read them; they come from Debian's packages.
 */
function grant({ dir, image }: MachineSpec, owner: Owner | undefined): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = owner ?? { uid: 0, gid: 0 };
  for (const folder of [dir, join(dir, FOLDER)]) {
    if (!existsSync(folder)) continue;
    chownSync(folder, 0, gid);
    chmodSync(folder, owner === undefined ? 0o700 : 0o710);
  }
  if (existsSync(diskPath(dir))) chownSync(diskPath(dir), uid, gid);
  for (const file of [image.kernel, image.initrd]) {
    const { mode } = statSync(file);
    if ((mode & 0o004) === 0) chmodSync(file, mode | 0o444);
  }
}

/** A limit that cannot be set is not worth the machine. */
function limit(cgroups: Cgroups, spec: MachineSpec, pid: number, accelerator: 'kvm' | 'tcg'): () => void {
  try {
    return confine(cgroups, spec, pid, qemuLimits(spec, accelerator));
  } catch {
    return () => undefined;
  }
}

/** Whether this QEMU can open a memory file for reading only and still let the guest write its copy (8.2). */
export function opensReadOnly(version: string): boolean {
  const [major = 0, minor = 0] = (/version (\d+)\.(\d+)/.exec(version) ?? []).slice(1).map(Number);
  return major > 8 || (major === 8 && minor >= 2);
}
