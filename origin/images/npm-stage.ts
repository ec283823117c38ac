/**
 * npm packages of one server, installed on the host into `npm/<digest>/` of the cache. Keyed by the list of specs alone,
 * so another server's change reinstalls nothing; a spec without a version therefore stays at what was current when it
 * was first installed, until the folder is removed. Install scripts never run: they would run on the host.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { requireTool, run } from '../vm/command.ts';
import { MachineError } from '../vm/error.ts';
import { digestOf, ensureBuilt, type Progress } from './cache.ts';
import type { BinRef } from './command-plan.ts';

const VERSION = 1;

export interface Stage {
  /** Holds `node_modules`. */
  folder: string;
  digest: string;
}

/** The stage for these specs, installed when absent. Rejects with `app-install-failed`. */
export async function ensureStage(cacheDir: string, specs: readonly string[], progress: Progress): Promise<Stage> {
  for (const spec of specs) {
    if (!/^[@a-z0-9]/i.test(spec)) throw new MachineError('app-install-failed', `"${spec}" is not an npm package`);
  }
  const sorted = [...new Set(specs)].sort();
  const digest = digestOf({ kind: 'npm', version: VERSION, specs: sorted });
  const folder = await ensureBuilt(cacheDir, 'npm', digest, (to) => install(to, sorted, progress), progress);
  return { folder, digest };
}

async function install(folder: string, specs: readonly string[], progress: Progress): Promise<void> {
  const npm = await requireTool('npm', 'It comes with Node: install Node with npm.');
  progress(`installing ${specs.join(' ')}`);
  await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'moorage-stage', private: true }));
  const flags = [
    '--ignore-scripts',
    '--omit=dev',
    '--no-audit',
    '--no-fund',
    '--no-package-lock',
    '--no-update-notifier',
  ];
  await run(npm, ['install', ...flags, '--prefix', folder, ...specs], {
    code: 'app-install-failed',
    cwd: folder,
    timeoutMs: 600_000,
  });
}

interface Manifest {
  name?: string;
  bin?: string | Record<string, string>;
}

/** Path of a package's program relative to the stage. Rejects with `app-bin-missing`, listing what there is. */
export async function findBin(stage: Stage, bin: BinRef): Promise<string> {
  const root = join('node_modules', bin.package);
  let manifest: Manifest;
  try {
    manifest = JSON.parse(await readFile(join(stage.folder, root, 'package.json'), 'utf8')) as Manifest;
  } catch (cause) {
    throw new MachineError('app-bin-missing', `the package ${bin.package} was not installed`, { cause });
  }
  const short = bin.package.replace(/^@[^/]+\//, '');
  const bins = typeof manifest.bin === 'string' ? { [short]: manifest.bin } : (manifest.bin ?? {});
  const names = Object.keys(bins);
  // npx's own rule: the bin that is asked for, else the only one, else the one named like the package.
  const chosen = bin.name !== undefined ? bins[bin.name] : names.length === 1 ? bins[names[0] ?? ''] : bins[short];
  if (chosen === undefined) {
    const choice =
      names.length === 0
        ? 'it has no programs'
        : `its programs are: ${names.join(', ')} (npx -p ${bin.package} <program>)`;
    throw new MachineError(
      'app-bin-missing',
      `the package ${bin.package} has no program "${bin.name ?? short}"; ${choice}`,
    );
  }
  return join(root, chosen);
}

/** True when the program is JavaScript for Node, judged by its name or its first line. */
export async function isNodeProgram(path: string): Promise<boolean> {
  if (/\.[cm]?js$/.test(path)) return true;
  const start = (await readFile(path)).subarray(0, 128).toString('latin1').split('\n')[0] ?? '';
  return start.startsWith('#!') && /\bnode\b/.test(start);
}
