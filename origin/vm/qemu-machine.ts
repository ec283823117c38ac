/**
 * One life of a machine on QEMU, through all its sleeps.
 *
 * States: starting -> running <-> paused <-> hibernated -> gone. Running and paused it has a QEMU, hibernated an image and
 * none; `gone` is final, and everything that was started in the machine is then settled. Every wait has a deadline.
 * Invariants: the image is complete before its QEMU is killed, and consumed before the next one runs; an operation that
 * fails half-way leaves the machine either as it was or gone, with no QEMU.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SEED_BYTES } from '../guest/syscalls.ts';
import { type ChannelState, GuestChannel, type Thaw } from './channel.ts';
import { coalesce } from './coalesce.ts';
import { type Child, copyRunning, type Parent } from './copy.ts';
import type {
  CopyCost,
  CopyOptions,
  Hibernation,
  MachineEnd,
  MachineSpec,
  ProcessSpec,
  RunningMachine,
  ServerProcess,
  Sleepable,
} from './driver.ts';
import { MachineError } from './error.ts';
import { GuestMemory } from './guest-memory.ts';
import { beginLoading, finishLoading, type Loading } from './incoming.ts';
import { type QemuCommand, QemuProcess } from './qemu-process.ts';
import type { ImageFiles, Manifest, MappedMemory, Snapshot } from './snapshot.ts';
import { QemuStandby } from './standby.ts';

const MONITOR_DEADLINE_MS = 10_000;

/** Milliseconds. `alive` is how long the kernel may take to reach user space before the boot counts as hung. */
export const DEADLINES = {
  kvm: { boot: 20_000, alive: 10_000, spawn: 20_000, sync: 60_000, thaw: 10_000, grace: 2_000, stop: 10_000 },
  tcg: { boot: 90_000, alive: 20_000, spawn: 60_000, sync: 120_000, thaw: 30_000, grace: 5_000, stop: 30_000 },
} as const;

/** What a machine needs of the driver. */
export interface MachineHost {
  readonly spec: MachineSpec;
  readonly accelerator: 'kvm' | 'tcg';
  readonly snapshot: Snapshot;
  /** How a QEMU over this memory file is started; its files are made accessible to it. */
  command(memory: string, incoming: boolean): QemuCommand;
  /** Path of its disk. */
  readonly disk: string;
  /** What must be the same for an image to be resumed. */
  readonly fingerprint: string;
  readonly machineId: string;
  /** Runs `make` for a machine that is to be made in its folder, where nobody runs one meanwhile. */
  forCopy<T>(child: MachineSpec, make: (child: Child) => Promise<T>): Promise<T>;
}

export class QemuMachine implements RunningMachine, Sleepable {
  readonly accelerator: 'kvm' | 'tcg';
  readonly gone: Promise<MachineEnd>;
  readonly sync: () => Promise<void>;
  readonly standby: QemuStandby;
  readonly #host: MachineHost;
  readonly #channel: GuestChannel;
  readonly #gone = Promise.withResolvers<MachineEnd>();
  readonly #limits: (typeof DEADLINES)['kvm' | 'tcg'];
  #qemu: QemuProcess | undefined;
  #memory: MappedMemory | undefined;
  #waking = false;
  /** Resolves when nobody makes or removes files: what does so waits for it, and so does `gone`. */
  #tidied: Promise<void> = Promise.resolve();
  #discarded: Promise<void> | undefined;
  /** The host's end of the channel knows less than the guest's: it was made anew. */
  #fresh: boolean;

  /** With `asleep` it begins hibernated, as another life of the agent left it. */
  constructor(host: MachineHost, asleep?: Manifest) {
    this.#host = host;
    this.accelerator = host.accelerator;
    this.#limits = DEADLINES[host.accelerator];
    this.#fresh = asleep !== undefined;
    this.gone = this.#gone.promise;
    this.#channel = new GuestChannel(
      (error) => {
        if (error.code === 'guest-protocol') void this.#qemu?.kill(error.message);
      },
      // Of this very type when the image was made; its sum holds.
      asleep?.channel as ChannelState | undefined,
      host.spec.egress,
    );
    this.standby = new QemuStandby((image) => this.#begin(image));
    if (asleep !== undefined) this.standby.allow(asleep);
    this.sync = coalesce(async () => {
      await this.#channel.control('sync', this.#limits.sync);
    });
  }

  get sleep(): Sleepable {
    return this;
  }

  /** Whether the guest's kernel has run programs. */
  get alive(): boolean {
    return this.#qemu?.isAlive ?? false;
  }

  /**
   * Boots. `again`: the boot before hung, and nobody boots it a third time, so its kernel has until the deadline to say something.
   * Rejects with `boot-timeout`, `boot-aborted`, `qemu-failed`, `machine-busy`; QEMU may then still run: `kill` it.
   */
  async boot(memory: MappedMemory, deadline: number, again: boolean, signal?: AbortSignal): Promise<void> {
    const { key } = this.#host.spec;
    this.#memory = memory;
    const qemu = new QemuProcess(this.#host.spec.dir, this.#host.command(memory.path, false));
    this.#own(qemu);
    const failure = Promise.withResolvers<never>();
    const fail = (code: 'boot-timeout' | 'boot-aborted' | 'machine-busy' | 'qemu-failed', what: string) =>
      failure.reject(new MachineError(code, `machine "${key}" ${what}`, { detail: qemu.consoleTail() }));
    const remaining = Math.max(0, deadline - Date.now());
    const aliveTimer = setTimeout(
      () => fail('boot-timeout', 'hung before its kernel ran anything'),
      again ? remaining : Math.min(this.#limits.alive, remaining),
    );
    const bootTimer = setTimeout(
      () => fail('boot-timeout', `did not start within ${this.#limits.boot / 1000} s`),
      remaining,
    );
    const abort = () => fail('boot-aborted', 'was not booted to the end: this was cancelled');
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    void qemu.alive.then(() => clearTimeout(aliveTimer));
    void qemu.ended.then((reason) =>
      fail(qemu.isLockedOut ? 'machine-busy' : 'qemu-failed', `did not start: ${reason}`),
    );
    failure.promise.catch(() => undefined);
    this.#channel.attach(qemu.guest);
    try {
      await Promise.race([this.#channel.hello.catch(() => failure.promise), failure.promise]);
      await Promise.race([this.#channel.tellTime(remaining), failure.promise]);
      const { allow = [] } = this.#host.spec.egress ?? {};
      if (allow.length > 0)
        await Promise.race([this.#channel.control('egress', remaining, { allow }), failure.promise]);
    } finally {
      clearTimeout(aliveTimer);
      clearTimeout(bootTimer);
      signal?.removeEventListener('abort', abort);
    }
  }

  spawn(spec: ProcessSpec): Promise<ServerProcess> {
    return this.#channel.spawn(spec, this.#limits.spawn);
  }

  processes(): ReadonlyMap<number, ServerProcess> {
    return this.#channel.processes();
  }

  async stop(): Promise<void> {
    const { grace, stop } = this.#limits;
    const qemu = this.#qemu;
    if (qemu === undefined) {
      this.kill();
      await this.gone;
      return;
    }
    const timer = setTimeout(() => void qemu.kill('it did not shut down in time and was ended'), stop);
    qemu.because('it was shut down');
    // A paused guest could not answer; for a running one this changes nothing.
    await qemu.qmp.command('cont', MONITOR_DEADLINE_MS).catch(() => undefined);
    if (this.#channel.isFrozen) this.#thaw().catch(() => undefined);
    // The guest powers off right after its answer, or instead of it: `gone` tells, the timer bounds.
    this.#channel.control('shutdown', stop, { graceMs: grace }).catch(() => undefined);
    await this.gone;
    clearTimeout(timer);
  }

  kill(): void {
    if (this.#qemu !== undefined) void this.#qemu.kill('it was killed');
    else void this.#discard('it was discarded while it slept');
  }

  async pause(force = false): Promise<number> {
    return await this.#orGone('it did not fall asleep', async (qemu) => {
      const heldMs = await this.#channel.freeze(this.#limits.sync, { force });
      if (heldMs === 0) await qemu.qmp.command('stop', MONITOR_DEADLINE_MS);
      return heldMs;
    });
  }

  async resume(): Promise<void> {
    await this.#orGone('it did not go on after a pause', async (qemu) => {
      await qemu.qmp.command('cont', MONITOR_DEADLINE_MS);
      // What is written from now on follows the thaw: nobody need wait for its answer.
      this.#thaw().catch(() => qemu.kill('it did not go on after a pause'));
    });
  }

  async fork(child: MachineSpec, options: CopyOptions): Promise<CopyCost> {
    const { snapshot } = this.#host;
    return await this.#host.forCopy(child, async (target) => {
      const settled = options.isIdle && this.#memory?.sealed === undefined ? await this.#settle(options) : {};
      // What is dirty now need not be written while the guest is silent.
      await Promise.all([this.sync(), this.#tidied]);
      const devices = await snapshot.beginDevices();
      try {
        return { ...(await copyRunning(this.#parent(devices), target, options)), ...settled };
      } finally {
        await rm(join(this.#host.spec.dir, devices.name), { force: true });
      }
    });
  }

  /** Goes on over a memory file, which copies can share: what a machine that booted has in memory is in none. */
  async #settle({ ownCarry }: CopyOptions): Promise<{ settledMs: number }> {
    const began = performance.now();
    await this.pause(true);
    await this.hibernate(ownCarry());
    await this.wake();
    return { settledMs: performance.now() - began };
  }

  /** As its copier sees it. What it does not survive ends it. */
  #parent(devices: { readonly name: string }): Parent {
    const { spec, disk } = this.#host;
    const [qemu, mapped] = [this.#qemu, this.#memory];
    if (qemu === undefined || mapped === undefined) throw new MachineError('machine-gone', 'it has no QEMU');
    const { qmp } = qemu;
    return {
      memory: () => new GuestMemory(qemu.pid, mapped.path, 'r'),
      disk,
      mapped,
      memoryBytes: spec.memoryMiB * 1024 * 1024,
      silence: async () => {
        try {
          await this.#channel.freeze(this.#limits.sync, { force: true, still: true });
        } catch (error) {
          // A guest that refuses goes on as it was.
          const refused = error instanceof MachineError && error.code === 'guest-protocol' && qemu === this.#qemu;
          if (!refused) await qemu.kill(`it did not fall silent: ${messageOf(error)}`);
          throw error;
        }
      },
      stop: async () => void (await qmp.command('stop', MONITOR_DEADLINE_MS)),
      saveDevices: async () => {
        const { name } = devices;
        await qmp.command('xen-save-devices-state', MONITOR_DEADLINE_MS, { filename: name, live: true });
        return join(spec.dir, name);
      },
      channel: () => this.#channel.state,
      goOn: () => this.resume(),
    };
  }

  async hibernate(carry: unknown): Promise<Hibernation> {
    const hibernating = this.#tidied.then(() => this.#hibernate(carry));
    this.#tidied = hibernating.then(
      () => undefined,
      () => undefined,
    );
    return await hibernating;
  }

  async #hibernate(carry: unknown): Promise<Hibernation> {
    const { snapshot, spec, fingerprint } = this.#host;
    const qemu = this.#qemu;
    const mapped = this.#memory;
    if (qemu === undefined || mapped === undefined) throw new MachineError('machine-gone', 'it has no QEMU');
    let memory: GuestMemory | undefined;
    let sealed: { bytes: number; manifest: Manifest; files: string[] };
    try {
      const devices = await snapshot.beginDevices();
      memory = new GuestMemory(qemu.pid, mapped.path, 'r');
      await qemu.qmp.command('xen-save-devices-state', MONITOR_DEADLINE_MS, { filename: devices.name, live: true });
      const size = spec.memoryMiB * 1024 * 1024;
      const said = { fingerprint, channel: this.#channel.state, carry };
      sealed = await snapshot.seal(devices.number, { memory, mapped, bytes: size }, said);
    } catch (cause) {
      // The marker may be there although the last step failed.
      await snapshot.consume().catch(() => undefined);
      await snapshot.sweep([mapped.path]).catch(() => undefined);
      throw new MachineError('hibernate-failed', `it stays in memory: ${messageOf(cause)}`, { cause });
    } finally {
      memory?.close();
    }
    this.#qemu = undefined;
    this.#memory = undefined;
    this.#channel.resetConnections();
    await qemu.kill('it sleeps');
    await snapshot.sweep(sealed.files).catch(() => undefined);
    if (this.#discarded === undefined) this.standby.allow(sealed.manifest);
    return { bytes: sealed.bytes };
  }

  async wake(): Promise<void> {
    const { snapshot, spec, fingerprint } = this.#host;
    this.#waking = true;
    try {
      const manifest = await snapshot.open(fingerprint);
      const { number, memory } = manifest;
      const path = snapshot.path(memory.name);
      const qemu = await this.#load(manifest);
      this.#memory = { number, path, sealed: memory };
      await snapshot.consume();
      this.#channel.attach(qemu.guest);
      await qemu.qmp.command('cont', MONITOR_DEADLINE_MS);
      const { hostname } = spec;
      const copy = manifest.copy && { hostname, machineId: this.#host.machineId, keep: manifest.copy.keep };
      const seed = randomBytes(SEED_BYTES).toString('base64');
      await this.#thaw({ seed, ...(copy ? { copy } : {}) });
      this.#waking = false;
      // Its QEMU has the memory file open; the rest is of no use any more, and nobody need wait for its removal.
      this.#tidied = snapshot.sweep([path]).catch(() => undefined);
    } catch (cause) {
      await this.#discard(messageOf(cause));
      if (cause instanceof MachineError) throw cause;
      throw new MachineError('snapshot-unusable', messageOf(cause), { cause });
    }
  }

  /** Starts a QEMU for the image, which is read meanwhile: starting takes longer. */
  #begin(image: ImageFiles): Loading {
    const { snapshot, spec, command } = this.#host;
    const memory = snapshot.path(image.memory.name);
    return beginLoading(spec.dir, command(memory, true), { memory, read: () => snapshot.read(image) });
  }

  /** A QEMU with the image: that which stands by, else a new one. */
  async #load(manifest: Manifest): Promise<QemuProcess> {
    const { snapshot, spec } = this.#host;
    const fault = snapshot.faultOf(manifest);
    const finish = (loading: Loading) => finishLoading(loading, spec.memoryMiB, fault);
    const waiting = await this.standby.take(manifest, finish);
    if (this.#discarded !== undefined) {
      await waiting?.kill('it was discarded');
      throw new MachineError('machine-gone', 'it was discarded before it woke');
    }
    if (waiting !== undefined) {
      this.#own(waiting);
      return waiting;
    }
    const loading = this.#begin(manifest);
    this.#own(loading.qemu);
    await finish(loading);
    return loading.qemu;
  }

  async #thaw(extra: Pick<Thaw, 'seed' | 'copy'> = {}): Promise<void> {
    const fresh = this.#fresh;
    this.#fresh = false;
    await this.#channel.thaw(this.#limits.thaw, { ms: Date.now(), fresh, ...extra });
  }

  /** From here on what becomes of this QEMU becomes of the machine. */
  #own(qemu: QemuProcess): void {
    this.#qemu = qemu;
    void qemu.ended.then((reason) => {
      // One that was hibernated is no longer ours to mourn.
      if (this.#qemu !== qemu) return;
      if (this.#waking) void this.#discard(reason);
      else this.#finish({ reason, consoleTail: qemu.consoleTail() });
    });
  }

  /** Runs a step that must succeed for the machine to be of any use. */
  async #orGone<T>(what: string, act: (qemu: QemuProcess) => Promise<T>): Promise<T> {
    const qemu = this.#qemu;
    if (qemu === undefined) throw new MachineError('machine-gone', 'it has no QEMU');
    try {
      return await act(qemu);
    } catch (error) {
      await qemu.kill(`${what}: ${messageOf(error)}`);
      throw error;
    }
  }

  /** Ends what is left of it, and its image. Nobody has its folder before. */
  #discard(reason: string): Promise<void> {
    this.#discarded ??= (async () => {
      const { snapshot } = this.#host;
      const qemu = this.#qemu;
      this.#qemu = undefined;
      await Promise.all([qemu?.kill(reason), this.standby.retire()]);
      await snapshot.consume().catch(() => undefined);
      await snapshot.sweep([]).catch(() => undefined);
      this.#finish({ reason, consoleTail: qemu?.consoleTail() ?? '' });
    })();
    return this.#discarded;
  }

  #finish(end: MachineEnd): void {
    this.#qemu = undefined;
    this.#channel.close(new MachineError('machine-gone', `machine "${this.#host.spec.key}" ended: ${end.reason}`));
    void this.#tidied.then(() => this.#gone.resolve(end));
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
