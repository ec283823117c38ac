/**
 * The QEMU that stands by for a machine that sleeps on disk: started ahead, with the memory of the image, waiting for the
 * devices that a wake loads. It runs nothing of the guest, holds no lock of the disk and writes to no file.
 *
 * States: none <-> waiting, waiting -> taken (the machine's own from then on). Invariants: it is the only QEMU of its folder;
 * whatever becomes of it, the image is as it was, and a wake goes on without it.
 */
import type { Standby } from './driver.ts';
import type { Loading } from './incoming.ts';
import type { Sealed } from './memory-files.ts';
import type { QemuProcess } from './qemu-process.ts';
import type { ImageFiles } from './snapshot.ts';

/** QEMU itself, beside the pages that it is given, in MiB. */
const QEMU_MIB = 32;
const MIB = 1024 * 1024;

interface Started {
  readonly loading: Loading;
  /** Whose memory it has. */
  readonly image: ImageFiles;
  leaving: boolean;
}

export class QemuStandby implements Standby {
  readonly #begin: (image: ImageFiles) => Loading;
  /** The image, while the machine sleeps and may have one that waits. */
  #image: ImageFiles | undefined;
  #started: Started | undefined;

  /** `begin` starts a QEMU for an image. */
  constructor(begin: (image: ImageFiles) => Loading) {
    this.#begin = begin;
  }

  /** The machine sleeps now, as this image. */
  allow({ memory, delta, devices }: ImageFiles): void {
    this.#image = { memory: sealOf(memory), delta: sealOf(delta), devices: sealOf(devices) };
  }

  get waits(): boolean {
    return this.#started !== undefined && !this.#started.leaving;
  }

  get memoryMiB(): number {
    const { delta } = this.#started?.image ?? this.#image ?? {};
    return QEMU_MIB + Math.ceil((delta?.bytes ?? 0) / MIB);
  }

  start(): void {
    const image = this.#image;
    if (image === undefined || this.#started !== undefined) return;
    let loading: Loading;
    try {
      loading = this.#begin(image);
    } catch {
      // The wake that needs one says why there is none.
      this.#image = undefined;
      return;
    }
    const started: Started = { loading, image, leaving: false };
    this.#started = started;
    loading.devices.catch(() => this.#fail(started));
    void loading.qemu.ended.then(() => {
      if (this.#started !== started) return;
      if (!started.leaving) this.#image = undefined;
      this.#started = undefined;
    });
  }

  async end(): Promise<void> {
    const started = this.#started;
    if (started === undefined) return;
    started.leaving = true;
    await started.loading.qemu.kill('it is not wanted any more');
  }

  /** The machine is no more. Resolves when nothing waits for it. */
  async retire(): Promise<void> {
    this.#image = undefined;
    await this.end();
  }

  /**
   * The machine wakes as this image: has `finish` load the rest into the one that waits. Resolves with that QEMU, which is the
   * caller's then, or with nothing when there is none or it was of no use; then none is left.
   */
  async take(wanted: ImageFiles, finish: (loading: Loading) => Promise<void>): Promise<QemuProcess | undefined> {
    this.#image = undefined;
    const started = this.#started;
    if (started === undefined) return undefined;
    try {
      if (!started.leaving && isSame(started.image, wanted)) await finish(started.loading);
      else started.leaving = true;
    } catch {
      started.leaving = true;
    }
    const { qemu } = started.loading;
    if (started.leaving || this.#started !== started) {
      await qemu.kill('it is not wanted any more');
      return undefined;
    }
    this.#started = undefined;
    return qemu;
  }

  /** One that failed would do so again. */
  #fail(started: Started): void {
    if (this.#started !== started) return;
    this.#image = undefined;
    void this.end();
  }
}

/** A manifest holds far more, and the machine may sleep for long. */
const sealOf = ({ name, bytes, sum }: Sealed): Sealed => ({ name, bytes, sum });

function isSame(one: ImageFiles, other: ImageFiles): boolean {
  return (['memory', 'delta', 'devices'] as const).every(
    (file) => one[file].name === other[file].name && one[file].sum === other[file].sum,
  );
}
