/**
 * The agent's memory for machines that sleep. `weigh` lays out a state folder of many (each the same hibernated machine: a
 * marker of its own, its large files linked), and has a fresh process find them; run as a program, this is that process.
 */
import { execFile } from 'node:child_process';
import { cpSync, linkSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { noteOwner } from '../origin/places.ts';
import { QUIET } from './log.ts';
import { BenchOrigin, keyOfPrincipal } from './origin.ts';

const SMALL = /^(image\.json|machine-id|images\.json)$/;

export interface Weight {
  readonly sleeping: number;
  /** Bytes of the process before and after, and of its heap. */
  readonly rss: readonly [number, number];
  readonly heap: readonly [number, number];
  readonly recallMs: number;
}

/** Weighs an agent with `count` machines like the hibernated one in `dir`. */
export async function weigh(dir: string, count: number): Promise<Weight> {
  const stateDir = mkdtempSync(join(dirname(dir), '../many-'));
  try {
    for (let index = 0; index < count; index += 1) {
      const principal = index.toString(16).padStart(32, '0');
      layOut(dir, join(stateDir, 'machines', keyOfPrincipal(principal)), principal);
    }
    const running = promisify(execFile)(process.execPath, ['--expose-gc', import.meta.filename, stateDir]);
    const end = () => void running.child.kill();
    process.once('exit', end);
    const { stdout } = await running;
    process.off('exit', end);
    return JSON.parse(stdout) as Weight;
  } finally {
    rmSync(stateDir, { recursive: true, force: true });
  }
}

function layOut(from: string, to: string, principal: string): void {
  for (const folder of ['', 'sleep']) {
    mkdirSync(join(to, folder), { recursive: true, mode: 0o700 });
    for (const entry of readdirSync(join(from, folder), { withFileTypes: true })) {
      if (!entry.isFile() || entry.name === 'qemu.pid') continue;
      const [source, target] = [join(from, folder, entry.name), join(to, folder, entry.name)];
      if (SMALL.test(entry.name)) cpSync(source, target);
      else linkSync(source, target);
    }
  }
  noteOwner(to, { isolation: 'principal', home: 'each', principal });
}

async function main(stateDir: string): Promise<void> {
  const origin = new BenchOrigin(QUIET, stateDir);
  await origin.machines.prepare();
  const before = settled();
  const began = performance.now();
  await origin.open();
  const recallMs = performance.now() - began;
  const after = settled();
  const sleeping = origin.machines.states().filter(({ state }) => state === 'hibernated').length;
  const weight: Weight = { sleeping, recallMs, rss: [before.rss, after.rss], heap: [before.heapUsed, after.heapUsed] };
  process.stdout.write(JSON.stringify(weight));
}

function settled(): NodeJS.MemoryUsage {
  for (let round = 0; round < 3; round += 1) globalThis.gc?.();
  return process.memoryUsage();
}

if (import.meta.main) await main(process.argv[2] ?? '');
