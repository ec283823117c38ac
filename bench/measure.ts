/** What is measured, one life of a machine after another. Each gives samples, split into the host's part and the guest's. */
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ProcessDefinition } from '../origin/server.ts';
import type { CopyCost, Hibernation, RunningMachine } from '../origin/vm/driver.ts';
import type { Sample } from './figures.ts';
import { memoryOfProcess } from './host.ts';
import type { BenchOrigin } from './origin.ts';
import { Server, timed } from './server.ts';
import type { Span, Spans, Trace } from './trace.ts';

export interface Bench {
  readonly origin: BenchOrigin;
  readonly trace: Trace;
}

/** From a call for a machine that is not there to its first tool result. */
export async function boot({ origin, trace }: Bench, definition: ProcessDefinition) {
  trace.clear();
  let server: Server | undefined;
  let running: RunningMachine | undefined;
  let started = 0;
  const { machines } = origin;
  const { began, answered } = await timed(
    () => machines.lease(definition),
    async ({ machine }) => {
      running = machine;
      server = new Server(await machines.start(definition, machine, {}));
      started = performance.now();
      await server.initialize();
      await server.call('count');
    },
  );
  const [machine, greeting] = [trace.last('boot'), trace.last('qmp qmp_capabilities')];
  const sample: Sample = {
    host: { 'disk and folder': machine.began - began, 'start of QEMU': greeting.ended - machine.began },
    guest: {
      boot: machine.ended - greeting.ended,
      'start of the server': started - machine.ended,
      'initialize and call': answered - started,
    },
  };
  return { sample, server: server as Server, running: running as RunningMachine };
}

/** From a call for a paused machine to the first byte of its result. */
export async function resume({ origin, trace }: Bench, definition: ProcessDefinition, server: Server): Promise<Sample> {
  await origin.until(definition, 'paused');
  trace.clear();
  const { began, leased, answered } = await timed(
    () => origin.machines.lease(definition),
    () => server.call('count'),
  );
  const cont = trace.took('qmp cont');
  return { host: { cont, 'our code': leased - began - cont }, guest: { answer: answered - leased } };
}

/** From a call for a hibernated machine to the first byte of its result. */
export async function wake({ origin, trace }: Bench, definition: ProcessDefinition, server: Server): Promise<Sample> {
  await origin.until(definition, 'hibernated');
  trace.clear();
  const { began, leased, answered } = await timed(
    () => origin.machines.lease(definition),
    () => server.call('count'),
  );
  return woken(trace, { began, leased, answered });
}

/** The same, of a machine for which a QEMU waits. Also gives that QEMU's memory, in bytes. */
export async function wakeStanding(
  { origin, trace }: Bench,
  { definition, server, running }: { definition: ProcessDefinition; server: Server; running: RunningMachine },
) {
  await origin.until(definition, 'hibernated');
  trace.clear();
  running.sleep?.standby?.start();
  while (!trace.find('qmp migrate-set-capabilities')) await sleep(5);
  const memory = memoryOfProcess(origin.pid(definition) ?? 0);
  trace.clear();
  const times = await timed(
    () => origin.machines.lease(definition),
    () => server.call('count'),
  );
  return { sample: woken(trace, times), memory };
}

/** So many bytes written to a new file as anybody would, and synced. */
export async function bareWrite(folder: string, bytes: number): Promise<Sample> {
  const path = join(folder, 'bare');
  const chunk = Buffer.alloc(1024 * 1024, 1);
  const file = await open(path, 'w');
  try {
    const began = performance.now();
    for (let left = bytes; left > 0; left -= chunk.length) await file.write(chunk, 0, Math.min(left, chunk.length));
    const written = performance.now();
    await file.sync();
    return { host: { write: written - began, fsync: performance.now() - written }, guest: {} };
  } finally {
    await file.close();
    await rm(path);
  }
}

/**
 * The steps of a wake that was seen. What is read of the image is read while QEMU starts; one that waited was started and has
 * read it long before.
 */
function woken(spans: Spans, { began, leased, answered }: { began: number; leased: number; answered: number }): Sample {
  const opened = spans.last('open');
  const [consume, cont, thaw] = [spans.last('consume'), spans.last('qmp cont'), spans.last('guest thaw')];
  const started = spans.find('qmp qmp_capabilities')?.ended ?? opened.ended;
  const complete = Math.max(started, spans.find('read')?.ended ?? started);
  // What it may reach, told at the same time to one that this agent has not seen before; the time again, where it came late.
  const told = ['guest egress', 'guest time'].map((name) => spans.find(name)?.ended ?? 0);
  const guest = Math.max(thaw.ended, ...told) - thaw.began;
  return {
    host: {
      'waiting for its turn': opened.began - began,
      'opening the image': lengthOf(opened),
      'start of QEMU': started - opened.ended,
      'reading the image after that': complete - started,
      'memory and device state': consume.began - complete,
      'consuming the image': lengthOf(consume),
      cont: lengthOf(cont),
      'our code': leased - consume.ended - lengthOf(cont) - guest,
    },
    guest: { thaw: guest, answer: answered - leased },
  };
}

/** From the end of a call, whose machine runs, to its sleep on disk; `bytes` were changed in memory by the call. */
export async function hibernate(
  { origin, trace }: Bench,
  definition: ProcessDefinition,
  server: Server,
  bytes: number,
) {
  await origin.until(definition, 'hibernated');
  await timed(
    () => origin.machines.lease(definition),
    async () => {
      await server.call('dirty', { bytes });
      trace.clear();
    },
  );
  await origin.until(definition, 'hibernated');
  return hibernated(trace);
}

/** The steps of the hibernation that was seen. */
export function hibernated(trace: Trace): { sample: Sample; bytes: number } {
  const whole = trace.last('hibernate');
  const [devices, dump, ending] = ['qmp xen-save-devices-state', 'seal', 'kill'].map((name) => trace.took(name)) as [
    number,
    number,
    number,
  ];
  return {
    bytes: (whole.value as Hibernation).bytes,
    sample: {
      host: {
        stop: trace.took('qmp stop'),
        'device state': devices,
        'dump and fsync': dump,
        'end of QEMU': ending,
        'our code': whole.ended - whole.began - devices - dump - ending,
      },
      guest: { 'falling silent': trace.took('guest freeze') },
    },
  };
}

/** A principal's first call, whose machine is made from the template, to its first tool result. */
export async function template({ origin, trace }: Bench, principal: string): Promise<Sample> {
  const definition = origin.ofPrincipal(principal);
  trace.clear();
  let started = 0;
  const { machines } = origin;
  const times = await timed(
    () => machines.lease(definition),
    async ({ machine }) => {
      const server = new Server(await machines.start(definition, machine, {}));
      started = performance.now();
      await server.initialize();
      await server.call('count');
    },
  );
  const copy = trace.last('copy');
  const { host, guest } = woken(trace, { ...times, began: copy.ended });
  return {
    host: { 'copy of the template': copy.ended - times.began, ...host },
    guest: {
      thaw: guest.thaw ?? Number.NaN,
      'start of the server': started - times.leased,
      'initialize and call': times.answered - started,
    },
  };
}

export interface ForkSamples {
  readonly outage: Sample;
  readonly answer: Sample;
  readonly cost: CopyCost;
  readonly child: ProcessDefinition;
  readonly server: Server;
}

/** From the wish to copy a live machine, which is awake, to the first byte of a result of the copy's process. */
export async function fork(
  { origin, trace }: Bench,
  parent: ProcessDefinition,
  name: string,
  stream: number,
): Promise<ForkSamples> {
  const { machines } = origin;
  const child = origin.forkOf(parent, name);
  const held = await machines.lease(parent);
  trace.clear();
  const began = performance.now();
  const cost = await machines.fork(parent, child, { files: {}, copied: () => ({ carry: [], keep: [stream] }) });
  held.release();
  const copied = performance.now();
  await machines.recallFork(child);
  const server = origin.adopted();
  const copying = trace.last('fork');
  const flushed = trace.took('guest sync');
  const times = await timed(
    () => machines.lease(child),
    () => server.call('count'),
  );
  const { host, guest } = woken(trace, times);
  return {
    cost,
    child,
    server,
    outage: { host: { paused: cost.pausedMs }, guest: { 'falling silent': cost.silentMs - cost.pausedMs } },
    answer: {
      host: {
        "the parent's pause": cost.pausedMs,
        'writing the copy': lengthOf(copying) - cost.silentMs - flushed,
        'making it known': times.began - copied + (copied - began - lengthOf(copying)),
        ...host,
      },
      guest: { 'flush and falling silent': flushed + cost.silentMs - cost.pausedMs, ...guest },
    },
  };
}

const lengthOf = ({ began, ended }: Span): number => ended - began;

/** All these hibernated machines are called at once. Resolves with each to its first byte, and all together in milliseconds. */
export async function wakeAll(
  { origin, trace }: Bench,
  sleeping: readonly Pick<ForkSamples, 'child' | 'server'>[],
): Promise<{ each: Sample[]; all: number }> {
  for (const { child } of sleeping) await origin.until(child, 'hibernated');
  const began = performance.now();
  const each = await Promise.all(
    sleeping.map(({ child, server }) =>
      trace.apart(async (spans) => {
        const lease = () => origin.machines.lease(child);
        return woken(spans, await timed(lease, () => server.call('count')));
      }),
    ),
  );
  return { each, all: performance.now() - began };
}
