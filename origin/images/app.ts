/**
 * The application image of a machine: each server's npm packages (node_modules), Python packages (python) and files under
 * /opt/mcp/<server>/, as one read-only erofs. Its digest covers the specs and the contents of local folders, so an unchanged recipe is found, not rebuilt.
 */
import { copyFile, link, lstat, mkdir, readdir, readlink, rm, symlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { MachineError } from '../vm/error.ts';
import { digestFolder, digestOf, ensureBuilt, isFolder, type Progress } from './cache.ts';
import type { BinRef } from './command-plan.ts';
import { packErofs } from './erofs.ts';
import { ensureStage, findBin, isNodeProgram, type Stage } from './npm-stage.ts';
import { ensurePipStage, findScript, type PipStage } from './pip-stage.ts';

const VERSION = 1;
const MAX_FILES_BYTES = 2 * 1024 * 1024 * 1024;
/** The folder of a server's Python packages in its own: an environment of Python. */
export const PYTHON = 'python';
const SKIPPED = new Set(['.git', '.moorage']);

/** What a machine's servers need. Names become folder names: letters, digits, dot, hyphen and underscore. */
export interface AppRecipe {
  servers: Readonly<Record<string, ServerRecipe>>;
}

export interface ServerRecipe {
  /** npm specs such as "@scope/name@1.2.3"; may be empty. */
  npm: readonly string[];
  /** pip specs such as "name==1.2.3". */
  pip?: readonly string[];
  /** Host folder copied to /opt/mcp/<server>/files. */
  files?: string;
}

interface Staged {
  npm?: Stage;
  pip?: PipStage;
}

export interface AppImage {
  /** The image; undefined when no server needs any file. */
  path: string | undefined;
  digest: string;
  /** Where a server's things are in the machine. */
  guestFolder(server: string): string;
  /** The argv prefix that runs an npm package's program. Rejects with `app-bin-missing`. */
  resolveBin(server: string, bin: BinRef | string): Promise<string[]>;
  /** The same for a Python package. */
  resolveScript(server: string, bin: BinRef): Promise<string[]>;
}

/** The image for a recipe: found by digest, else installed and packed. Rejects with a MachineError. */
export async function ensureApp(cacheDir: string, recipe: AppRecipe, progress: Progress): Promise<AppImage> {
  const names = Object.keys(recipe.servers).sort();
  const stages = new Map<string, Staged>();
  const inputs: unknown[] = [];
  for (const name of names) {
    if (!/^[a-z0-9][a-z0-9._-]*$/i.test(name)) {
      throw new MachineError(
        'app-install-failed',
        `"${name}" cannot name a server: use letters, digits, "-", "_" and "."`,
      );
    }
    const { npm = [], pip = [], files } = recipe.servers[name] ?? { npm: [] };
    const stage: Staged = {};
    if (npm.length > 0) stage.npm = await ensureStage(cacheDir, npm, progress);
    if (pip.length > 0) stage.pip = await ensurePipStage(cacheDir, pip, progress);
    if (npm.length + pip.length > 0) stages.set(name, stage);
    const packages =
      stage.pip === undefined ? (stage.npm?.digest ?? null) : [stage.npm?.digest ?? null, stage.pip.digest];
    inputs.push([name, packages, files === undefined ? null : await digestFiles(files)]);
  }
  const digest = digestOf({ kind: 'app', version: VERSION, inputs });
  const empty = names.every((name) => !stages.has(name) && recipe.servers[name]?.files === undefined);
  const folder = empty
    ? undefined
    : await ensureBuilt(cacheDir, 'app', digest, (to) => pack(to, recipe, stages, progress), progress);
  return {
    path: folder === undefined ? undefined : join(folder, 'app.erofs'),
    digest,
    guestFolder,
    async resolveBin(server, bin) {
      const stage = stages.get(server)?.npm;
      const ref = typeof bin === 'string' ? { package: bin } : bin;
      if (stage === undefined) throw new MachineError('app-bin-missing', `server "${server}" installs no packages`);
      const path = await findBin(stage, ref);
      const inGuest = join(guestFolder(server), path);
      return (await isNodeProgram(join(stage.folder, path))) ? ['node', inGuest] : [inGuest];
    },
    async resolveScript(server, bin) {
      const stage = stages.get(server)?.pip;
      if (stage === undefined) throw new MachineError('app-bin-missing', `server "${server}" installs no packages`);
      const folder = join(guestFolder(server), PYTHON);
      return [join(folder, 'bin/python'), join(folder, await findScript(stage, bin))];
    },
  };
}

/** The folder to copy for a script: the nearest one upwards with a package.json, else the script's own. */
export async function packageFolderOf(file: string): Promise<string> {
  const own = dirname(resolve(file));
  for (let folder = own; ; folder = dirname(folder)) {
    if ((await readdir(folder).catch((): string[] => [])).includes('package.json')) return folder;
    if (dirname(folder) === folder) return own;
  }
}

function guestFolder(server: string): string {
  return `/opt/mcp/${server}`;
}

async function digestFiles(folder: string): Promise<string> {
  if (!(await isFolder(folder))) throw new MachineError('app-install-failed', `${folder} is not a folder`);
  return digestFolder(folder, (name) => SKIPPED.has(name));
}

async function pack(
  to: string,
  recipe: AppRecipe,
  stages: ReadonlyMap<string, Staged>,
  progress: Progress,
): Promise<void> {
  progress('packing application image');
  const root = join(to, 'root');
  const budget = { left: MAX_FILES_BYTES };
  for (const [name, server] of Object.entries(recipe.servers)) {
    const target = join(root, guestFolder(name));
    await mkdir(target, { recursive: true });
    const stage = stages.get(name);
    if (stage?.npm !== undefined) await replicate(stage.npm.folder, target, budget, true);
    if (stage?.pip !== undefined) await replicate(stage.pip.venv, join(target, PYTHON), budget, true);
    if (server.files !== undefined) await replicate(resolve(server.files), join(target, 'files'), budget, false);
  }
  await packErofs(root, join(to, 'app.erofs'));
  await rm(root, { recursive: true });
}

/** Copies a tree, keeping links as links; our own stages may share file contents with the copy. */
async function replicate(from: string, to: string, budget: { left: number }, share: boolean): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    if (SKIPPED.has(entry.name)) continue;
    if (entry.isDirectory()) await replicate(source, target, budget, share);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else if (entry.isFile()) {
      budget.left -= (await lstat(source)).size;
      if (budget.left < 0) throw new MachineError('app-install-failed', `the files under ${from} exceed 2 GiB`);
      await (share ? link(source, target) : copyFile(source, target));
    }
  }
}
