/**
 * The few system calls that a guest needs and Node does not offer (ioctl, clock_settime, sync), made by a tiny helper
 * program: `images/syscall-program.ts` builds it, this file is its protocol and its client.
 *
 * The helper runs for as long as the agent: under emulation starting a process costs tens of milliseconds, a request to a
 * running one almost none. It answers requests one by one, in order.
 *
 * Request and answer are FRAME_BYTES long: seven u64 (number and six arguments, little endian), then data, whose address
 * in the helper is DATA_ADDRESS. The answer's first u64 is the result, negative for an error number.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';

export const FRAME_BYTES = 256;
/** Where the helper keeps the frame; the program is linked to this address. */
export const FRAME_ADDRESS = 0x401000;
const HEAD_BYTES = 7 * 8;
export const DATA_ADDRESS = FRAME_ADDRESS + HEAD_BYTES;

/** Numbers of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl). */
const NUMBER = { open: 2, close: 3, ioctl: 16, sync: 162, clock_settime: 227 } as const;
const O_RDWR = 2;
const CLOCK_REALTIME = 0;
/** Of include/uapi/linux/random.h. */
const RNDADDENTROPY = 0x40085203;
const RNDRESEEDCRNG = 0x5207;
export const SEED_BYTES = 64;
/** Where the helper is in the guest. */
export const SYSCALLS_PROGRAM = '/opt/moorage/syscalls';

export function encodeRequest(number: number, args: readonly number[], data?: Uint8Array): Buffer {
  const frame = Buffer.alloc(FRAME_BYTES);
  for (const [index, value] of [number, ...args].entries()) frame.writeBigInt64LE(BigInt(value), index * 8);
  if (data !== undefined) frame.set(data, HEAD_BYTES);
  return frame;
}

/** One ioctl(2): its request number and what its argument points to. */
export type Ioctl = readonly [request: number, data: Uint8Array];

/**
 * Does these ioctls on a file that the agent has open, which takes a helper of its own: it inherits the file. Blocks the
 * agent for as long as a small process takes. @throws Error naming the error number of the first that failed.
 */
export function ioctlsOn(fd: number, ioctls: readonly Ioctl[]): void {
  const input = Buffer.concat(
    ioctls.map(([request, data]) => encodeRequest(NUMBER.ioctl, [3, request, DATA_ADDRESS], data)),
  );
  const { stdout } = spawnSync(SYSCALLS_PROGRAM, { input, stdio: ['pipe', 'pipe', 'inherit', fd] });
  for (const index of ioctls.keys()) {
    const result = stdout.readBigInt64LE(index * FRAME_BYTES);
    if (result < 0n) throw new Error(`ioctl failed with error ${-result}`);
  }
}

export class Syscalls {
  readonly #child: ChildProcess;
  readonly #waiters: ((result: bigint) => void)[] = [];
  #partial = Buffer.alloc(0);

  /** Starts the helper. `onGone` is called when it ends, after which nothing is answered. */
  constructor(path: string, onGone: () => void) {
    this.#child = spawn(path, [], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.once('error', onGone);
    this.#child.once('exit', onGone);
    this.#child.stdin?.on('error', () => undefined);
    this.#child.stdout?.on('data', (data: Buffer) => {
      this.#partial = Buffer.concat([this.#partial, data]);
      while (this.#partial.length >= FRAME_BYTES) {
        this.#waiters.shift()?.(this.#partial.readBigInt64LE(0));
        this.#partial = this.#partial.subarray(FRAME_BYTES);
      }
    });
  }

  /** Writes all file systems' dirty data to their disks. */
  async sync(): Promise<void> {
    await this.#call('sync', []);
  }

  /** Sets the wall clock, in milliseconds since the epoch. */
  async setClock(ms: number): Promise<void> {
    const time = Buffer.alloc(16);
    time.writeBigInt64LE(BigInt(Math.floor(ms / 1000)), 0);
    time.writeBigInt64LE(BigInt(Math.floor((ms % 1000) * 1e6)), 8);
    await this.#call('clock_settime', [CLOCK_REALTIME, DATA_ADDRESS], time);
  }

  /** Credits `seed` to the kernel's random numbers and makes it use it at once: a write to /dev/urandom does neither. */
  async reseed(seed: Uint8Array): Promise<void> {
    const device = Number(await this.#call('open', [DATA_ADDRESS, O_RDWR], Buffer.from('/dev/urandom\0')));
    const pool = Buffer.alloc(8 + SEED_BYTES);
    pool.writeInt32LE(SEED_BYTES * 8, 0);
    pool.writeInt32LE(SEED_BYTES, 4);
    pool.set(seed.subarray(0, SEED_BYTES), 8);
    await this.#call('ioctl', [device, RNDADDENTROPY, DATA_ADDRESS], pool);
    await this.#call('ioctl', [device, RNDRESEEDCRNG]);
    await this.#call('close', [device]);
  }

  async #call(name: keyof typeof NUMBER, args: readonly number[], data?: Uint8Array): Promise<bigint> {
    const result = await new Promise<bigint>((resolve) => {
      this.#waiters.push(resolve);
      this.#child.stdin?.write(encodeRequest(NUMBER[name], args, data));
    });
    if (result < 0n) throw new Error(`${name} failed with error ${-result}`);
    return result;
  }
}
