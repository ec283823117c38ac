/**
 * Puts the image of a sleeping machine into a QEMU that waits for one (`-incoming defer`), memory first: the devices' rings lie
 * in it. The guest does not run yet, nothing of the image is consumed, and QEMU writes neither to the disk nor to the memory
 * file: one that turns out to have the wrong image is ended without a trace.
 */

import { applyDelta } from './delta.ts';
import { MachineError } from './error.ts';
import { GuestMemory } from './guest-memory.ts';
import { type QemuCommand, QemuProcess } from './qemu-process.ts';
import type { Contents } from './snapshot.ts';

/** Starting and loading take tens of milliseconds; a loaded host may need seconds. */
const LOAD_DEADLINE_MS = 30_000;
/** After another boot of the host the memory file is read as well: at 20 MiB a second, on a slow disk. */
const LOAD_MS_PER_MIB = 50;

/** A QEMU into which an image is loaded. */
export interface Loading {
  readonly qemu: QemuProcess;
  /**
   * Resolves, when the memory is loaded, with the state of the devices. Rejects with `snapshot-unusable` or another
   * MachineError: the QEMU is then of no use.
   */
  readonly devices: Promise<Buffer>;
}

/** An image: the path of its memory file, and what reads its other files. */
export interface Image {
  readonly memory: string;
  readonly read: () => Promise<Contents>;
}

/** Starts a QEMU on a folder that no other one uses, and loads the memory of an image into it. @throws the system's error. */
export function beginLoading(dir: string, command: QemuCommand, image: Image): Loading {
  const qemu = new QemuProcess(dir, command);
  // In the queue before QEMU listens: it reads this and what lets it accept commands in one go.
  const capabilities = [{ capability: 'events', state: true }];
  const ready = qemu.qmp.command('migrate-set-capabilities', LOAD_DEADLINE_MS, { capabilities });
  ready.catch(() => undefined);
  // Not before: memory that is touched while a process is made costs both.
  const contents = image.read();
  const devices = within(LOAD_DEADLINE_MS, qemu, async () => {
    const [{ delta, devices }] = await Promise.all([contents, ready]);
    const memory = new GuestMemory(qemu.pid, image.memory, 'r+');
    try {
      applyDelta(delta, memory);
    } finally {
      memory.close();
    }
    return devices;
  });
  devices.catch(() => undefined);
  return { qemu, devices };
}

/** Loads the devices too, unless `fault` says what is wrong with the memory file: then it can run. Rejects as `devices`. */
export async function finishLoading(
  { qemu, devices }: Loading,
  memoryMiB: number,
  fault: Promise<string | undefined>,
): Promise<void> {
  await within(LOAD_DEADLINE_MS + LOAD_MS_PER_MIB * memoryMiB, qemu, async () => {
    const [state, why] = await Promise.all([devices, fault]);
    if (why !== undefined) throw new MachineError('snapshot-unusable', why);
    const over = qemu.qmp.event((event, { status }) => {
      return event === 'MIGRATION' && (status === 'completed' || status === 'failed') ? status : undefined;
    }, LOAD_DEADLINE_MS);
    over.catch(() => undefined);
    qemu.sendState(state);
    await qemu.qmp.command('migrate-incoming', LOAD_DEADLINE_MS, { uri: 'fd:5' });
    if ((await over) !== 'completed') throw new MachineError('snapshot-unusable', 'QEMU refused its device state');
  });
}

/** Fails when `act` takes too long or its QEMU ends meanwhile. */
async function within<T>(ms: number, qemu: QemuProcess, act: () => Promise<T>): Promise<T> {
  const failure = Promise.withResolvers<never>();
  const fail = (why: string) => failure.reject(new MachineError('snapshot-unusable', why));
  const timer = setTimeout(() => fail(`QEMU did not load it within ${ms / 1000} s`), ms);
  void qemu.ended.then((reason) => fail(reason));
  failure.promise.catch(() => undefined);
  const acting = act();
  acting.catch(() => undefined);
  try {
    return await Promise.race([acting, failure.promise]);
  } finally {
    clearTimeout(timer);
  }
}
