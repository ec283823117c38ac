/**
 * `npm run bench -- machines [--json FILE]` measures on this host what machines cost in time, memory and disk, and what of it
 * is ours. Nothing is left behind, whatever ends it.
 */
import { writeFileSync } from 'node:fs';
import {
  bytes,
  type Figure,
  figure,
  median,
  ratio,
  type Size,
  sizesOf,
  type Target,
  tableOf,
  WHOLE,
} from './figures.ts';
import { describeHost, diskOf, hostSize, memoryOfProcess } from './host.ts';
import { complaining } from './log.ts';
import {
  type Bench,
  bareWrite,
  boot,
  type ForkSamples,
  fork,
  hibernate,
  hibernated,
  resume,
  template,
  wake,
  wakeAll,
  wakeStanding,
} from './measure.ts';
import { GUEST_MIB, type Options, parseOptions } from './options.ts';
import { BenchOrigin } from './origin.ts';
import { weigh } from './sleeping.ts';
import { Trace } from './trace.ts';

const DIRTIED = 10_000_000;
/** Runs of what takes a moment, and of what takes a boot. */
const RUNS = { kvm: { quick: 31, slow: 3 }, tcg: { quick: 9, slow: 3 } } as const;
const FEWEST = 3;
/** Since the start of this process. */
const ENOUGH_MS = 180_000;
const NAMES = {
  boot: 'cold boot → first tool result',
  paused: 'paused → first byte',
  wake: 'hibernated → first byte',
  standing: 'hibernated, a QEMU waits → first byte',
  template: 'template → first tool result',
  fork: 'fork → first byte of the child',
} as const;

/** Of the host's part, whatever runs the guest. */
const WAKE: readonly Target[] = [{ of: WHOLE, ms: 30 }];
const STANDING: readonly Target[] = [{ of: WHOLE, ms: 15 }];
const CONT: readonly Target[] = [{ of: 'cont', ms: 1 }];
/** In proportion to what is written, in bytes: 16 ms for 10 MB. */
const dumpOf = (written: number): readonly Target[] => [{ of: 'dump and fsync', ms: (16 * written) / 10e6 }];
const OUTAGE = { shared: 20, copied: 40 } as const;

const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function measure(origin: BenchOrigin, options: Options) {
  const bench: Bench = { origin, trace: new Trace() };
  const figures: Figure[] = [];
  const sizes: Size[] = [];
  const notes: string[] = [];
  const [paused, asleep, spare] = [origin.server('paused'), origin.server('asleep'), origin.server('spare')];

  say('images');
  await origin.open();
  say('boots');
  const first = await boot(bench, paused);
  const accelerator = (await origin.machines.lease(paused).then((lease) => {
    lease.release();
    return lease.machine.accelerator;
  })) as 'kvm' | 'tcg';
  const host = describeHost(accelerator, origin.stateDir);
  const runs = RUNS[accelerator];
  const second = await boot(bench, asleep);
  await origin.until(asleep, 'hibernated');
  const wholes = [hibernated(bench.trace)];
  const third = await boot(bench, spare);
  await origin.until(spare, 'hibernated');
  wholes.push(hibernated(bench.trace));
  const { server } = second;

  say('sleep');
  const resumes = await times(runs.quick, () => resume(bench, paused, first.server));
  await origin.until(paused, 'paused');
  sizes.push(memory(origin, paused, 'RAM of a paused machine'));
  const wakes = await times(runs.quick, () => wake(bench, asleep, server));
  const clean = await times(runs.quick, () => hibernate(bench, asleep, server, 0));
  const standing = await times(runs.quick, () => wakeStanding(bench, { ...second, definition: asleep }));
  const dirty = await times(runs.quick, async () => {
    const hibernation = await hibernate(bench, asleep, server, DIRTIED);
    return { ...hibernation, bare: await bareWrite(origin.stateDir, hibernation.bytes) };
  });
  const disk = diskOf(origin.dir(asleep));

  say('forks');
  const { stream = 0 } = server.process;
  const forks: ForkSamples[] = [];
  for (let index = 0; index < options.wakes; index += 1) {
    const made = await fork(bench, asleep, `fork-${index + 1}`, stream);
    if (index === 0) {
      const lease = await origin.machines.lease(made.child);
      sizes.push(memory(origin, made.child, 'RAM of a fork that has answered'));
      lease.release();
    }
    await origin.until(made.child, 'hibernated');
    forks.push(made);
  }
  say(`${forks.length} wakes at once`);
  const together = await wakeAll(bench, forks);
  for (const { child } of forks) await origin.until(child, 'hibernated');
  const [child] = forks;
  const childDisk = child ? diskOf(origin.dir(child.child)) : { own: 0, shared: 0 };

  say('template');
  await template(bench, 'first');
  const templates = await times(runs.slow, (run) => template(bench, `principal-${run}`));

  say(`${options.sleeping} sleeping machines`);
  await origin.until(asleep, 'hibernated');
  const weight = await weigh(origin.dir(asleep), options.sleeping);

  const copied = forks[0]?.cost.disk ?? 'copied';
  const written = (samples: readonly { bytes: number }[]) => median(samples.map((sample) => sample.bytes));
  figures.push(
    figure(NAMES.paused, resumes, CONT),
    figure(NAMES.wake, wakes, [...WAKE, ...CONT]),
    figure(
      NAMES.standing,
      standing.map(({ sample }) => sample),
      [...STANDING, ...CONT],
    ),
    figure(
      NAMES.boot,
      [first, second, third].map(({ sample }) => sample),
    ),
    figure(NAMES.template, templates),
    figure(
      'outage of a forked parent',
      forks.map(({ outage }) => outage),
      [{ of: WHOLE, ms: OUTAGE[copied] }],
    ),
    figure(
      NAMES.fork,
      forks.map(({ answer }) => answer),
    ),
    figure(
      'first hibernation after a boot',
      wholes.map(({ sample }) => sample),
    ),
    figure(
      'hibernation, nothing dirtied',
      clean.map(({ sample }) => sample),
    ),
    figure(
      'hibernation, 10 MB dirtied',
      dirty.map(({ sample }) => sample),
      dumpOf(written(dirty)),
    ),
    figure(
      'as many bytes, written and synced bare',
      dirty.map(({ bare }) => bare),
    ),
    figure(`${together.each.length} wakes at once, each to its first byte`, together.each),
  );
  const perMachine = (weight.rss[1] - weight.rss[0]) / weight.sleeping;
  const [waiting] = standing;
  sizes.push(
    {
      name: 'RAM of a QEMU that waits',
      bytes: waiting?.memory.proportional ?? Number.NaN,
      note: `proportional; ${bytes(waiting?.memory.own ?? Number.NaN)} its own`,
    },
    { name: 'RAM of a hibernated machine', bytes: perMachine, note: "the agent's share; it has no QEMU" },
    {
      name: `RAM of ${weight.sleeping} hibernated machines`,
      bytes: weight.rss[1] - weight.rss[0],
      note: `of an agent that has ${bytes(weight.rss[1])} in all; heap ${bytes(weight.heap[1] - weight.heap[0])}; found in ${(weight.recallMs / 1000).toFixed(1)} s`,
    },
    { name: 'disk of a hibernated machine', bytes: disk.own + disk.shared, note: 'its disk, its memory' },
    {
      name: 'disk of a fork',
      bytes: childDisk.own,
      note: `and ${bytes(childDisk.shared)} shared; its disk was ${copied}`,
    },
    { name: 'written for a fork', bytes: median(forks.map(({ cost }) => cost.memoryBytes)), note: 'memory' },
    { name: 'written by the first hibernation', bytes: written(wholes), note: 'all that the guest touched' },
    {
      name: 'written by a hibernation, nothing dirtied',
      bytes: written(clean),
      note: 'what changed since its memory file',
    },
    { name: 'written by a hibernation, 10 MB dirtied', bytes: written(dirty), note: 'the same, and 10 MB' },
  );
  const grown = written(dirty) - written(clean);
  const dumped = (name: string) =>
    figures.find((found) => found.name === name)?.parts.host['dump and fsync'] ?? Number.NaN;
  const slope = dumped('hibernation, 10 MB dirtied') - dumped('hibernation, nothing dirtied');
  notes.push(
    `${together.each.length} wakes at once took ${(together.all / 1000).toFixed(2)} s together.`,
    `The ${bytes(grown)} that a hibernation writes more cost ${slope.toFixed(1)} ms.`,
    ratio(figures, NAMES.paused, NAMES.boot),
    ratio(figures, NAMES.wake, NAMES.boot),
    ratio(figures, NAMES.template, NAMES.boot),
    ratio(figures, NAMES.fork, NAMES.boot),
  );
  return { host, guestMiB: GUEST_MIB, figures, sizes, notes };
}

/** So often, or less on a host that is too slow for it: the table says how often. */
async function times<T>(runs: number, act: (run: number) => Promise<T>): Promise<T[]> {
  const found: T[] = [];
  for (let run = 0; run < runs && (run < FEWEST || performance.now() < ENOUGH_MS); run += 1) found.push(await act(run));
  return found;
}

function memory(origin: BenchOrigin, definition: Parameters<BenchOrigin['pid']>[0], name: string): Size {
  const pid = origin.pid(definition);
  if (pid === undefined) throw new Error(`"${definition.machine}" has no QEMU.`);
  const { proportional, own } = memoryOfProcess(pid);
  return { name, bytes: proportional, note: `proportional; ${bytes(own)} its own` };
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2), hostSize());
  let isOver = false;
  const origin = new BenchOrigin(complaining((line) => isOver || say(line)));
  const interrupted = Promise.withResolvers<never>();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => interrupted.reject(new Error(`interrupted (${signal})`)));
  }
  // Whatever way this process ends.
  process.once('exit', () => origin.discard());
  const began = performance.now();
  try {
    const result = await Promise.race([measure(origin, options), interrupted.promise]);
    const { host } = result;
    process.stdout.write(
      `${host.date}, ${host.accelerator}, ${host.cpus} × ${host.processor}, ${host.memoryMiB} MiB, load ${host.load.toFixed(1)}, ` +
        `kernel ${host.kernel}, QEMU ${host.qemu}, Node ${host.node}, ${host.fileSystem}; guests of ${GUEST_MIB} MiB\n\n` +
        `${tableOf(result.figures)}\n\n${sizesOf(result.sizes)}\n\n${result.notes.map((note) => `- ${note}`).join('\n')}\n`,
    );
    if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`);
    say(`took ${((performance.now() - began) / 1000).toFixed(0)} s`);
  } finally {
    isOver = true;
    await origin.close();
  }
}

main().then(
  () => process.exit(0),
  (error: Error) => {
    say(error.message);
    process.exit(1);
  },
);
