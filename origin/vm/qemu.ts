/**
 * Machines as QEMU processes: boots them, watches them, ends them.
 *
 * States of a machine: launched -> greeted (its agent said hello) -> running -> ended. Invariants: one QEMU per folder;
 * a QEMU dies with the agent (where setpriv exists) or is evicted at the next boot; every wait has a deadline; once
 * ended, everything that was started in the machine is settled. Whoever ends a machine states the reason first, and the
 * first reason wins.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { ALIVE_MARKER } from '../images/initrd.ts';
import { type Accelerator, probeAccelerator } from './accelerator.ts';
import { qemuArguments, tscKhzFrom } from './arguments.ts';
import { GuestChannel } from './channel.ts';
import { coalesce } from './coalesce.ts';
import { findTool, requireTool } from './command.ts';
import { RingBuffer } from './console.ts';
import { claim, ensureDisk, evictLeftover, release } from './disk.ts';
import type {
  MachineDriver,
  MachineEnd,
  MachineSpec,
  Pausable,
  ProcessSpec,
  RunningMachine,
  ServerProcess,
} from './driver.ts';
import { MachineError } from './error.ts';
import { INSTALL_HINT } from './host.ts';
import { Qmp } from './qmp.ts';

const CONSOLE_BYTES = 64 * 1024;
const TAIL_BYTES = 16 * 1024;
const MONITOR_DEADLINE_MS = 10_000;

/** Milliseconds. `alive` is how long the kernel may take to reach user space before the boot counts as hung. */
const DEADLINES = {
  kvm: { boot: 20_000, alive: 10_000, spawn: 20_000, sync: 60_000, grace: 2_000, stop: 10_000 },
  tcg: { boot: 90_000, alive: 20_000, spawn: 60_000, sync: 120_000, grace: 5_000, stop: 30_000 },
} as const;

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

  async boot(
    spec: MachineSpec,
    progress: (step: string) => void,
    signal?: AbortSignal,
  ): Promise<RunningMachine & Pausable> {
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(spec.hostname)) {
      throw new MachineError('boot-aborted', `"${spec.hostname}" is not a host name: use letters, digits and hyphens`);
    }
    if (this.#busy.has(spec.dir)) {
      throw new MachineError('machine-busy', `machine "${spec.key}" already runs or boots in this process`);
    }
    this.#busy.add(spec.dir);
    try {
      const machine = await this.#boot(spec, progress, signal);
      machine.gone.then(() => this.#busy.delete(spec.dir));
      return machine;
    } catch (error) {
      this.#busy.delete(spec.dir);
      throw error;
    }
  }

  async #boot(spec: MachineSpec, progress: (step: string) => void, signal?: AbortSignal): Promise<QemuMachine> {
    const qemu = await requireTool('qemu-system-x86_64', INSTALL_HINT);
    const setpriv = this.#options.dieWithAgent === false ? undefined : await findTool('setpriv');
    const { accelerator } = await this.accelerator(spec.image);
    if (await evictLeftover(spec.dir)) progress('ended a machine that a dead agent left behind');
    const disk = await ensureDisk(spec.dir, spec.diskMiB);
    const tscKhz = tscKhzFrom(readFileSync('/proc/cpuinfo', 'utf8'));
    const args = qemuArguments({ spec, accelerator, disk, tscKhz });
    const command = setpriv === undefined ? [qemu] : [setpriv, '--pdeathsig', 'KILL', '--no-new-privs', '--', qemu];
    const deadline = Date.now() + DEADLINES[accelerator].boot;
    for (let attempt = 1; ; attempt += 1) {
      if (signal?.aborted) throw new MachineError('boot-aborted', `the boot of "${spec.key}" was cancelled`);
      progress(accelerator === 'kvm' ? 'booting' : 'booting (software emulation)');
      const machine = new QemuMachine(spec, accelerator, [...command, ...args]);
      try {
        await machine.ready(deadline, signal);
        return machine;
      } catch (error) {
        machine.kill();
        await machine.gone;
        const hung = accelerator === 'tcg' && attempt === 1 && !machine.alive && !signal?.aborted;
        if (!hung || !(error instanceof MachineError) || error.code !== 'boot-timeout') throw error;
        progress('the emulated guest hung while starting; booting it once more');
      }
    }
  }
}

class QemuMachine implements RunningMachine, Pausable {
  readonly accelerator: 'kvm' | 'tcg';
  readonly gone: Promise<MachineEnd>;
  readonly sync: () => Promise<void>;
  /** True once the guest's kernel runs programs. */
  alive = false;
  readonly #spec: MachineSpec;
  readonly #child: ChildProcess;
  readonly #channel: GuestChannel;
  readonly #qmp: Qmp;
  readonly #console = new RingBuffer(CONSOLE_BYTES);
  readonly #complaints = new RingBuffer(TAIL_BYTES);
  readonly #aliveSignal = Promise.withResolvers<void>();
  #reason: string | undefined;

  constructor(spec: MachineSpec, accelerator: 'kvm' | 'tcg', command: readonly string[]) {
    this.#spec = spec;
    this.accelerator = accelerator;
    const [file = '', ...args] = command;
    this.#child = spawn(file, args, { cwd: spec.dir, stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'] });
    try {
      if (this.#child.pid !== undefined) claim(spec.dir, this.#child.pid);
    } catch (error) {
      this.#child.kill('SIGKILL');
      throw error;
    }
    let head = '';
    this.#child.stdout?.on('data', (data: Buffer) => {
      this.#console.push(data);
      if (this.alive) return;
      head = (head + data.toString('latin1')).slice(-1024);
      this.alive = head.includes(ALIVE_MARKER);
      if (this.alive) this.#aliveSignal.resolve();
    });
    this.#child.stderr?.on('data', (data: Buffer) => this.#complaints.push(data));
    this.#qmp = new Qmp(this.#child.stdio[3] as Duplex);
    this.#channel = new GuestChannel(this.#child.stdio[4] as Duplex, (error) => {
      if (error.code === 'guest-protocol') this.#end(error.message);
    });
    this.gone = this.#watch();
    this.sync = coalesce(() => this.#channel.control('sync', DEADLINES[this.accelerator].sync));
  }

  /** Waits for the agent and sets the guest's clock. Rejects with `boot-timeout`, `boot-aborted`, `qemu-failed`. */
  async ready(deadline: number, signal?: AbortSignal): Promise<void> {
    const limits = DEADLINES[this.accelerator];
    const failure = Promise.withResolvers<never>();
    const late = (what: string) => () =>
      failure.reject(new MachineError('boot-timeout', `machine "${this.#spec.key}" ${what}`, { detail: this.#tail() }));
    const remaining = Math.max(0, deadline - Date.now());
    const aliveTimer = setTimeout(late('hung before its kernel ran anything'), Math.min(limits.alive, remaining));
    const bootTimer = setTimeout(late(`did not start within ${limits.boot / 1000} s`), remaining);
    const abort = () =>
      failure.reject(new MachineError('boot-aborted', `the boot of "${this.#spec.key}" was cancelled`));
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) abort();
    this.#aliveSignal.promise.then(() => clearTimeout(aliveTimer));
    this.gone.then(({ reason }) =>
      failure.reject(
        new MachineError(this.#failureCode(), `machine "${this.#spec.key}" did not start: ${reason}`, {
          detail: this.#tail(),
        }),
      ),
    );
    failure.promise.catch(() => undefined);
    try {
      await Promise.race([this.#channel.hello.catch(() => failure.promise), failure.promise]);
      await Promise.race([this.#channel.control('time', remaining, { ms: Date.now() }), failure.promise]);
    } finally {
      clearTimeout(aliveTimer);
      clearTimeout(bootTimer);
      signal?.removeEventListener('abort', abort);
    }
  }

  spawn(spec: ProcessSpec): Promise<ServerProcess> {
    return this.#channel.spawn(spec, DEADLINES[this.accelerator].spawn);
  }

  async stop(): Promise<void> {
    const { grace, stop } = DEADLINES[this.accelerator];
    const timer = setTimeout(() => this.#end('it did not shut down in time and was ended'), stop);
    this.#reason ??= 'it was shut down';
    // A paused guest could not answer; for a running one this changes nothing.
    await this.#qmp.command('cont', MONITOR_DEADLINE_MS).catch(() => undefined);
    // The guest powers off right after its answer, or instead of it: `gone` tells, the timer bounds.
    this.#channel.control('shutdown', stop, { graceMs: grace }).catch(() => undefined);
    await this.gone;
    clearTimeout(timer);
  }

  async pause(): Promise<void> {
    await this.#qmp.command('stop', MONITOR_DEADLINE_MS);
  }

  async resume(): Promise<void> {
    await this.#qmp.command('cont', MONITOR_DEADLINE_MS);
    await this.#channel.control('time', DEADLINES[this.accelerator].sync, { ms: Date.now() });
  }

  kill(): void {
    this.#end('it was killed');
  }

  #end(reason: string): void {
    this.#reason ??= reason;
    this.#child.kill('SIGKILL');
  }

  #watch(): Promise<MachineEnd> {
    return new Promise((resolve) => {
      const settle = (what: string) => {
        release(this.#spec.dir);
        const reason = this.#reason ?? what;
        this.#channel.close(new MachineError('machine-gone', `machine "${this.#spec.key}" ended: ${reason}`));
        resolve({ reason, consoleTail: this.#tail() });
      };
      this.#child.once('error', (error) => settle(`QEMU cannot be started: ${error.message}`));
      this.#child.once('exit', (code, signal) => {
        // Power-off from inside is a clean exit of QEMU; the pipes may still hold the console's last lines.
        setImmediate(() => settle(code === 0 ? 'the guest powered off' : this.#crashReason(code, signal)));
      });
    });
  }

  #crashReason(code: number | null, signal: string | null): string {
    const complaint = this.#complaints.tail(1000).trim().split('\n').at(-1);
    return `QEMU ended (${code ?? signal})${complaint ? `: ${complaint}` : ''}`;
  }

  #failureCode(): 'machine-busy' | 'qemu-failed' {
    return /lock/.test(this.#complaints.tail(TAIL_BYTES)) ? 'machine-busy' : 'qemu-failed';
  }

  #tail(): string {
    return this.#console.tail(TAIL_BYTES);
  }
}
