/**
 * A sleeping machine on the disk: the folder `sleep/` of the machine, of which `image.json` is the marker.
 *
 * | file | holds |
 * | --- | --- |
 * | `image.json` | its sum, then what belongs to the image; there exactly while the image may be resumed |
 * | `memory-N.ram` | a memory file, mapped by QEMU |
 * | `delta-N` | the pages that differ from the memory file |
 * | `devices-N` | QEMU's device state |
 *
 * Invariants: `image.json` appears by a rename, after the content of all that it names has reached the disk; it is removed
 * (and the removal has reached the disk) before anything runs on the machine's disk again, so an image is resumed at most
 * once. What it says is believed only if every sum holds and the machine's disk is untouched since.
 */
import { existsSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { writeDelta } from './delta.ts';
import { MachineError } from './error.ts';
import type { GuestMemory, Run } from './guest-memory.ts';
import type { Owner } from './jail.ts';
import {
  createMemory,
  faultInFile,
  faultInMemory,
  faultOfMemory,
  lengthOf,
  type Pages,
  type Sealed,
  type SealedMemory,
  writeMemory,
} from './memory-files.ts';

const FORMAT = 1;
export const FOLDER = 'sleep';
const MARKER = 'image.json';
/** A delta above this becomes a memory file of its own: putting it back would take longer than writing it once, in bytes. */
const MAX_DELTA = 64 * 1024 * 1024;
const MAX_MANIFEST = 16 * 1024 * 1024;

/** What an image says. */
export interface Manifest {
  readonly format: number;
  readonly number: number;
  /** Of what must be the same for the image to be of any use: QEMU, processor, machine, files. */
  readonly fingerprint: string;
  readonly memory: SealedMemory;
  readonly delta: Sealed;
  readonly devices: Sealed;
  /** The machine's disk as it was left. */
  readonly disk: string;
  /** What the host's end of the guest's channel must know to go on. */
  readonly channel: unknown;
  /** Of the machine's owner. */
  readonly carry: unknown;
  /** Set where this is a copy of another machine, which becomes one of its own when it wakes: streams that go on. */
  readonly copy?: { readonly keep: readonly number[] };
}

/** The files of an image. */
export type ImageFiles = Readonly<Record<'memory' | 'delta' | 'devices', Sealed>>;

/** What an image says beside its files. */
export type Said = Pick<Manifest, 'fingerprint' | 'channel' | 'carry' | 'copy'>;

/** What an image holds beside its memory file, found whole. */
export interface Contents {
  /** Path of the changed pages: these go into the guest's memory in pieces. */
  readonly delta: string;
  readonly devices: Buffer;
}

/** The memory that a running QEMU is mapped over. */
export interface MappedMemory {
  readonly number: number;
  readonly path: string;
  /** Of a guest that woke: what its memory file holds. */
  readonly sealed?: SealedMemory;
}

interface Written {
  readonly sealed: SealedMemory;
  readonly delta: Sealed;
  /** Whether `sealed` was written too. */
  readonly isNew: boolean;
}

/** What the user that QEMU runs as may do with the files of an image. */
export interface ImageAccess {
  /** Who writes QEMU's device state; absent: the agent's own user. */
  readonly owner: Owner | undefined;
  /** Of a memory file. The folder lets in nobody else. */
  readonly memoryMode: number;
}

const OWN_ACCESS: ImageAccess = { owner: undefined, memoryMode: 0o600 };

export class Snapshot {
  readonly #folder: string;
  readonly #disk: string;
  readonly #access: ImageAccess;

  constructor(machineDir: string, disk: string, access = OWN_ACCESS) {
    this.#folder = join(machineDir, FOLDER);
    this.#disk = disk;
    this.#access = access;
  }

  path(name: string): string {
    return join(this.#folder, name);
  }

  /** Whether there is an image, whole or not. */
  static exists(machineDir: string): boolean {
    return existsSync(join(machineDir, FOLDER, MARKER));
  }

  /** Removes the image and makes an empty memory file for a boot. True when there was an image. */
  async begin(bytes: number): Promise<{ memory: MappedMemory; discarded: boolean }> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const discarded = (await readdir(this.#folder)).includes(MARKER);
    await this.consume();
    const number = await this.#nextNumber();
    const path = this.path(`memory-${number}.ram`);
    await createMemory(path, bytes, this.#access.memoryMode);
    await this.sweep([path]);
    return { memory: { number, path }, discarded };
  }

  /** An empty file for QEMU to save its devices in, for the next image: its name from the machine's folder. */
  async beginDevices(): Promise<{ number: number; name: string }> {
    const number = await this.#nextNumber();
    const file = await open(this.path(`devices-${number}`), 'wx', 0o600);
    try {
      const { owner } = this.#access;
      if (owner !== undefined) await file.chown(owner.uid, owner.gid);
    } finally {
      await file.close();
    }
    return { number, name: join(FOLDER, `devices-${number}`) };
  }

  /**
   * Writes the image of a stopped guest whose devices are saved. Resolves with the bytes written, what the image says, and
   * the files that belong to it. Rejects with the system's error.
   */
  async seal(
    number: number,
    guest: { memory: GuestMemory; mapped: MappedMemory; bytes: number },
    said: Said,
  ): Promise<{ bytes: number; manifest: Manifest; files: string[] }> {
    const files = await this.write(number, { ...guest, changed: guest.memory.changed() });
    const manifest = await this.complete(number, files, said);
    const { devices } = manifest;
    const { sealed, delta, isNew } = files;
    return {
      bytes: (isNew ? lengthOf(sealed.runs) : 0) + delta.bytes + devices.bytes,
      manifest,
      files: [sealed, delta, devices].map((file) => this.path(file.name)),
    };
  }

  /** Writes the memory of a stopped guest: what changed, or all of it where that is the lesser evil. */
  async write(
    number: number,
    { memory, mapped, changed, bytes }: { memory: Pages; mapped: MappedMemory; changed: readonly Run[]; bytes: number },
  ): Promise<Written> {
    const isNew = mapped.sealed === undefined || lengthOf(changed) > MAX_DELTA;
    const name = `memory-${number}.ram`;
    const known = mapped.sealed?.runs ?? [];
    const mode = this.#access.memoryMode;
    const sealed =
      mapped.sealed === undefined || isNew
        ? await writeMemory(this.path(name), name, memory, { changed, known, bytes, mode })
        : mapped.sealed;
    const delta = await writeDelta(this.path(`delta-${number}`), `delta-${number}`, memory, isNew ? [] : changed);
    return { sealed, delta, isNew };
  }

  /** Makes an image of what was written, and of the devices that were saved. */
  async complete(number: number, { sealed, delta }: Omit<Written, 'isNew'>, said: Said): Promise<Manifest> {
    const [devices, disk] = await Promise.all([sealFile(this.#folder, `devices-${number}`), sealDisk(this.#disk)]);
    const manifest: Manifest = { format: FORMAT, number, memory: sealed, delta, devices, disk, ...said };
    await this.#mark(manifest);
    return manifest;
  }

  /**
   * What the image says, as far as it can be resumed without being read. Nothing is consumed. Rejects with
   * `snapshot-unusable`, naming why. `trusted` is the fingerprint that the image must have.
   */
  async open(trusted: string): Promise<Manifest> {
    const manifest = await this.manifest();
    if (manifest.fingerprint !== trusted) throw unusable('it was taken by another QEMU, processor, or set of files');
    if (manifest.disk !== (await identityOfDisk(this.#disk))) throw unusable("the machine's disk was changed since");
    // QEMU would make the file that it misses.
    const fault = await faultOfMemory(this.path(manifest.memory.name), manifest.memory);
    if (fault !== undefined) throw unusable(fault);
    return manifest;
  }

  /** Reads and checks the files of an image that was opened, but for its memory file. Rejects with `snapshot-unusable`. */
  async read({ delta, devices }: ImageFiles): Promise<Contents> {
    await Promise.all([this.#check(delta), this.#check(devices)]);
    return { delta: this.path(delta.name), devices: await readFile(this.path(devices.name)) };
  }

  /** What is wrong with the content of its memory file, or nothing. */
  async faultOf({ memory }: Manifest): Promise<string | undefined> {
    return await faultInMemory(this.path(memory.name), memory).catch(() => 'its memory file cannot be read');
  }

  /** What the marker says. Rejects with `snapshot-unusable`. */
  async manifest(): Promise<Manifest> {
    let text: string;
    try {
      if ((await stat(this.path(MARKER))).size > MAX_MANIFEST) throw unusable('its description is too long');
      text = await readFile(this.path(MARKER), 'utf8');
    } catch (cause) {
      throw cause instanceof MachineError ? cause : unusable('its description cannot be read', cause);
    }
    const [sum = '', body = ''] = text.split('\n', 2);
    if (body === '' || sum !== sumOf(body)) throw unusable('its description is torn');
    const manifest = JSON.parse(body) as Manifest;
    if (manifest.format !== FORMAT) throw unusable('it has another format');
    return manifest;
  }

  /** Removes the marker for good: from here on the image cannot be resumed. */
  async consume(): Promise<void> {
    await rm(this.path(MARKER), { force: true });
    await syncPath(this.#folder);
  }

  /** Removes every file but the marker and those that are named. */
  async sweep(keep: readonly string[]): Promise<void> {
    for (const name of await readdir(this.#folder).catch(() => [])) {
      const path = this.path(name);
      if (name !== MARKER && !keep.includes(path)) await rm(path, { force: true });
    }
  }

  async #mark(manifest: Manifest): Promise<void> {
    const body = JSON.stringify(manifest);
    const temporary = this.path(`${MARKER}.tmp`);
    await writeFile(temporary, `${sumOf(body)}\n${body}`, { mode: 0o600 });
    await rename(temporary, this.path(MARKER));
    // Its content, its name, and the names of all that it names. A crash before all of it has reached the disk leaves what is
    // not believed: a torn marker, or one that names what is missing.
    await Promise.all([syncPath(this.path(MARKER)), syncPath(this.#folder)]);
  }

  async #check(file: Sealed): Promise<void> {
    const fault = await faultInFile(this.path(file.name), file).catch((cause: unknown) => {
      throw unusable(`${file.name} cannot be read`, cause);
    });
    if (fault !== undefined) throw unusable(fault);
  }

  async #nextNumber(): Promise<number> {
    const numbers = (await readdir(this.#folder)).map((name) => Number(/-(\d+)(\.ram)?$/.exec(name)?.[1] ?? 0));
    return Math.max(0, ...numbers) + 1;
  }
}

function unusable(why: string, cause?: unknown): MachineError {
  return new MachineError('snapshot-unusable', why, { cause });
}

const sumOf = (text: string): string => crc32(text).toString(16);

/** The identity of the disk, whose content has reached the host's disk. */
async function sealDisk(path: string): Promise<string> {
  await syncPath(path);
  return await identityOfDisk(path);
}

async function sealFile(folder: string, name: string): Promise<Sealed> {
  const path = join(folder, name);
  await syncPath(path);
  const data = await readFile(path);
  return { name, bytes: data.length, sum: crc32(data) };
}

/** Size and time of the last write: whoever writes to the disk changes them. */
export async function identityOfDisk(path: string): Promise<string> {
  const { size, mtimeNs } = await stat(path, { bigint: true });
  return `${size} ${mtimeNs}`;
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
