/**
 * Puts the image of a sleeping machine into a QEMU that waits for one (`-incoming defer`). The guest does not run yet, nothing
 * of the image is consumed, and QEMU touches neither its disk nor the memory file: one that turns out to have the wrong image
 * is ended without a trace.
 */
import { MachineError } from './error.ts';
import { GuestMemory } from './guest-memory.ts';
import { applyDelta } from './memory-files.ts';
import type { QemuProcess } from './qemu-process.ts';
import type { Contents } from './snapshot.ts';

/** Starting and loading take tens of milliseconds; a loaded host may need seconds. */
const LOAD_DEADLINE_MS = 30_000;
/** After another boot of the host the memory file is read as well: at 20 MiB a second, on a slow disk. */
const LOAD_MS_PER_MIB = 50;

/** Resolves when a QEMU that was just started can take an image. Rejects with `qemu-failed`, `machine-gone`. */
export async function ready({ qmp }: QemuProcess): Promise<void> {
  // In the queue before QEMU listens: it reads this and what lets it accept commands in one go.
  await qmp.command('migrate-set-capabilities', LOAD_DEADLINE_MS, {
    capabilities: [{ capability: 'events', state: true }],
  });
}

/**
 * Loads an image, whose files are read meanwhile, into a QEMU over its memory file (`path`). Rejects with
 * `snapshot-unusable` or another MachineError: the QEMU is then of no use.
 */
export async function loadImage(
  qemu: QemuProcess,
  { path, memoryMiB, image }: { path: string; memoryMiB: number; image: Promise<Contents> },
): Promise<void> {
  await within(LOAD_DEADLINE_MS + LOAD_MS_PER_MIB * memoryMiB, qemu, async () => {
    const [{ delta, devices, memoryFault }] = await Promise.all([image, ready(qemu)]);
    const fault = await memoryFault;
    if (fault !== undefined) throw new MachineError('snapshot-unusable', fault);
    const memory = new GuestMemory(qemu.pid, path, 'r+');
    try {
      applyDelta(delta, memory);
    } finally {
      memory.close();
    }
    // After the memory: the devices' rings lie in it.
    await loadDevices(qemu, devices);
  });
}

async function loadDevices(qemu: QemuProcess, devices: Buffer): Promise<void> {
  const { qmp } = qemu;
  const over = qmp.event((event, { status }) => {
    return event === 'MIGRATION' && (status === 'completed' || status === 'failed') ? status : undefined;
  }, LOAD_DEADLINE_MS);
  over.catch(() => undefined);
  qemu.sendState(devices);
  await qmp.command('migrate-incoming', LOAD_DEADLINE_MS, { uri: 'fd:5' });
  if ((await over) !== 'completed') throw new MachineError('snapshot-unusable', 'QEMU refused its device state');
}

/** Fails when `act` takes too long or its QEMU ends meanwhile. */
async function within(ms: number, qemu: QemuProcess, act: () => Promise<void>): Promise<void> {
  const failure = Promise.withResolvers<never>();
  const fail = (why: string) => failure.reject(new MachineError('snapshot-unusable', why));
  const timer = setTimeout(() => fail(`QEMU did not load it within ${ms / 1000} s`), ms);
  void qemu.ended.then((reason) => fail(reason));
  failure.promise.catch(() => undefined);
  const acting = act();
  acting.catch(() => undefined);
  try {
    await Promise.race([acting, failure.promise]);
  } finally {
    clearTimeout(timer);
  }
}
