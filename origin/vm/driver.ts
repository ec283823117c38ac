/**
 * The seam between the supervisor and whatever runs a machine (QEMU today). Only types: nothing here acts.
 *
 * Ownership: who calls `boot` owns the machine and must end it with `stop` or `kill`; `gone` then resolves exactly once.
 * Who calls `spawn` owns the process and its three streams. When the machine goes, every stream is destroyed with a
 * `machine-gone` MachineError and `exited` resolves with `{ code: null, signal: 'SIGKILL' }`: nobody waits for ever.
 * Cancellation: aborting `boot`'s signal kills the half-booted machine before the promise rejects (`boot-aborted`).
 */
import type { Readable, Writable } from 'node:stream';

/** What to run inside the machine. `argv[0]` is looked up in the guest's PATH; `cwd` is created when absent. */
export interface ProcessSpec {
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  cwd: string;
  /**
   * Runs it on a terminal of this size, in characters: `stdin` and `stdout` are the terminal, `stderr` ends at once, a program
   * that is not there ends with code 127.
   */
  terminal?: TerminalSize;
}

export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/** Signals that a process in a machine can be sent. */
export type ProcessSignal = 'SIGHUP' | 'SIGINT' | 'SIGQUIT' | 'SIGKILL' | 'SIGUSR1' | 'SIGUSR2' | 'SIGTERM';

/** How a process ended: exactly one of the two is non-null (`signal` is a name such as 'SIGTERM'). */
export interface ProcessExit {
  code: number | null;
  signal: string | null;
}

/**
 * A process inside the machine. Streams carry bytes with end-to-end backpressure: an unread `stdout` stops the process
 * in its `write`, and `stdin.write` returns false until the process reads. `stdout` and `stderr` must both be consumed
 * (or `resume()`d): a process whose stderr nobody reads stalls. `exited` resolves when the process has ended,
 * independently of how much of its output has been read; it never rejects.
 */
export interface ServerProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly exited: Promise<ProcessExit>;
  /** Its name within the machine, which it keeps for as long as it runs. */
  readonly stream?: number;
  /**
   * Signals the process and its children (its process group). Default SIGTERM. Harmless after the exit. SIGHUP hangs up a
   * terminal: the kernel then tells its foreground.
   */
  kill(signal?: ProcessSignal): void;
  /** Its terminal's window has another size; nothing without a terminal. */
  resize?(size: TerminalSize): void;
}

/** Absolute paths of the immutable files that a machine boots from; built by `origin/images/`, shared by machines. */
export interface MachineImage {
  kernel: string;
  initrd: string;
  /** Read-only root file system (erofs). */
  base: string;
  /** Packages of the distribution (erofs), laid over the base. */
  system?: string;
  /** Read-only applications (erofs), laid over both; absent for a bare machine. */
  app?: string;
  /** Root of a container image (erofs): a tree of its own beside the machine's. */
  container?: string;
}

/** One machine. `dir` is its own directory (created 0700) and holds its disk: two machines never share one. */
export interface MachineSpec {
  /** Stable name of the machine, for messages. */
  key: string;
  dir: string;
  image: MachineImage;
  memoryMiB: number;
  cpus: number;
  /** Size of the data disk when it is first made; an existing disk is never shrunk and keeps its size. */
  diskMiB: number;
  /** Processes and threads of everything that is started in it, at most; holds from its next boot. */
  pids?: number;
  hostname: string;
  /** Who makes the connections that its programs want; without it they get none. */
  egress?: Egress;
}

/** A connection that a program in the machine wants. Whoever gets it accepts it, then carries both streams, or refuses it. */
export interface GuestConnection {
  /** As the guest says it, unchecked. */
  readonly target: Readonly<Record<string, unknown>>;
  /** What the program sends, with backpressure. It ends, or is destroyed when the connection is over. */
  readonly up: Readable;
  /** What the program gets. */
  readonly down: Writable;
  /** Aborted when it is over before both streams have ended. */
  readonly gone: AbortSignal;
  accept(): void;
  /** The program sees a reset, as after `reset`: its own connect succeeded inside the machine. */
  refuse(why: string): void;
  reset(): void;
}

/** The network of one machine: what it is told that it may reach, and who decides and dials (`origin/egress/`). */
export interface Egress {
  /** For the guest to know which names to answer; never relied on. */
  readonly allow: readonly { readonly kind: string; readonly host: string; readonly port: number }[];
  connect(connection: GuestConnection): void;
  /** There are too many already: to be refused. */
  overflow(connection: GuestConnection): void;
  /** What the guest says of connections that were not even asked for, unchecked. */
  note(note: Readonly<Record<string, unknown>>): void;
}

/** Why a machine ended, for logs: one sentence, and the last lines of its serial console (at most 16 KiB). */
export interface MachineEnd {
  reason: string;
  consoleTail: string;
}

/** A booted machine whose guest agent answers. */
export interface RunningMachine {
  /** What runs the guest's instructions; `none` when there is no guest (runtime `process`). */
  readonly accelerator: 'kvm' | 'tcg' | 'none';
  /** Resolves once, when the machine has ended for whatever reason; never rejects. */
  readonly gone: Promise<MachineEnd>;
  /** Starts a process. Rejects with `spawn-failed`, `too-many-processes`, `guest-timeout` or `machine-gone`. */
  spawn(spec: ProcessSpec): Promise<ServerProcess>;
  /** Resolves when all that processes have written so far survives the loss of the machine. Rejects as `spawn`. */
  sync(): Promise<void>;
  /** Ends processes, unmounts and powers off; falls back to `kill` after a deadline. Resolves once it is gone. */
  stop(): Promise<void>;
  /** Ends the machine at once, as a power cut would. Of a hibernated one the image is discarded. */
  kill(): void;
  /** Absent where there is nothing to put to sleep. */
  readonly sleep?: Sleepable;
  /**
   * running -> running. Copies it, memory, processes and disk, into the folder of `child`, where there must be none: whole or
   * not at all, as a hibernated machine for `MachineDriver.recall`, which becomes one of its own as it wakes (host name,
   * machine id, clock, random numbers). The folder is the caller's. Rejects with `fork-failed`: it runs on, or is gone.
   * Absent where there is nothing to copy. No other operation of `Sleepable` may be under way.
   */
  fork?(child: MachineSpec, options: CopyOptions): Promise<CopyCost>;
  /** The processes of a machine that was recalled, by their `stream`. They are running, or will say that they ended. */
  processes?(): ReadonlyMap<number, ServerProcess>;
}

/** How a copy of a machine differs from it. */
export interface CopyOptions {
  /** What the copy carries, as a hibernated machine does; read while nothing of the machine runs. */
  readonly carry: () => unknown;
  /** Nobody uses the machine now: if none of its memory is in a file that can be shared, it may sleep for a moment first. */
  readonly isIdle: boolean;
  /** What the machine itself carries in that moment. */
  readonly ownCarry: () => unknown;
  /**
   * Streams of processes that go on in the copy, with the random generators that they had. All others are ended there
   * before they do another step.
   */
  readonly keep: () => readonly number[];
  /** Small files that are in the copy's folder from its first moment, by name. */
  readonly files: Readonly<Record<string, string>>;
}

/** What copying a machine cost. */
export interface CopyCost {
  /** How long its processors stood still; 0 for a copy of one that slept. Milliseconds. */
  readonly pausedMs: number;
  /** How long it slept before, so that its memory can be shared. Milliseconds. */
  readonly settledMs?: number;
  /** How long its processes said and heard nothing. Milliseconds. */
  readonly silentMs: number;
  /** Memory that was written for the copy; the rest is shared with the machine. Bytes. */
  readonly memoryBytes: number;
  /** `shared` until either writes (reflink), or `copied` where the file system cannot. */
  readonly disk: 'shared' | 'copied';
}

/** What a hibernation cost. */
export interface Hibernation {
  readonly bytes: number;
}

/**
 * A machine that can sleep: paused it costs no processor time, hibernated no memory either. One operation at a time, each
 * only in the state that it starts from. The machine stays the same object, its processes keep their streams; what is
 * written to them meanwhile waits. `gone` resolves when its life is lost: the end of a hibernating QEMU is none.
 */
export interface Sleepable {
  /**
   * running -> paused. The guest writes its disks first. Resolves with 0, or with how long somebody inside asks that it stay
   * awake, in milliseconds (it then runs on); `force` asks nobody. Rejects with a MachineError, and the machine is gone.
   */
  pause(force?: boolean): Promise<number>;
  /** paused -> running. The clock is right a moment later. Rejects with a MachineError, and the machine is gone. */
  resume(): Promise<void>;
  /**
   * paused -> hibernated. `carry` is kept with the image, for `MachineDriver.recall`. Rejects with `hibernate-failed`: it
   * is still paused, or gone.
   */
  hibernate(carry: unknown): Promise<Hibernation>;
  /** hibernated -> running. Rejects with `snapshot-unusable` or another MachineError: it is gone, its disk free. */
  wake(): Promise<void>;
  /** Absent where nothing can be started ahead of a wake. */
  readonly standby?: Standby;
}

/**
 * What waits for the wake of a hibernated machine, started ahead, so that the wake need not start it. Without it, and
 * whatever becomes of it, the machine wakes all the same.
 */
export interface Standby {
  /** Whether it is there. */
  readonly waits: boolean;
  /** What it takes of the host's memory, or would take. */
  readonly memoryMiB: number;
  /** Starts it, at most once for each time that the machine sleeps; does nothing unless the machine is hibernated. */
  start(): void;
  /** Resolves when it is gone. */
  end(): Promise<void>;
}

/** A hibernated machine that another life of the agent left behind. */
export interface Recalled {
  readonly machine: RunningMachine;
  /** As it was given to `hibernate`. */
  readonly carry: unknown;
}

/** Boots machines. Rejects with a MachineError; `progress` gets short lower-case steps meant for people. */
export interface MachineDriver {
  /** A boot discards the machine's image, if there is one, before anything runs. */
  boot(spec: MachineSpec, progress: (step: string) => void, signal?: AbortSignal): Promise<RunningMachine>;
  /**
   * Whether a machine was hibernated in this folder. Otherwise what a crash left there is ended and removed, but for the
   * disk. Rejects with `machine-busy` when another agent runs it.
   */
  isAsleep?(dir: string): Promise<boolean>;
  /** The machine hibernated in this folder; undefined when there is none. Rejects with `snapshot-unusable`. */
  recall?(spec: MachineSpec): Promise<Recalled | undefined>;
  /** Removes what unfinished copies left below the folder of machines. For an agent that starts. */
  sweep?(folder: string): Promise<void>;
  /**
   * As `RunningMachine.fork`, of a hibernated machine that nobody uses: `from` stays as it is. Rejects with
   * `snapshot-unusable` when it cannot be a template (any more).
   */
  copy?(from: MachineSpec, to: MachineSpec, options: Pick<CopyOptions, 'files'>): Promise<CopyCost>;
}
