/**
 * Python packages of one server, installed on the host into `pip/<digest>/` of the cache: `venv`, an environment whose
 * place in the machine is free, and `lock.json` with the exact wheels.
 *
 * Only wheels are installed: to build a source package is to run its code, on the host. Keyed by the list of specs and by
 * the Python, as npm's stage is by its specs.
 */
import { lstat, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MachineError } from '../vm/error.ts';
import { digestOf, ensureBuilt, type Progress } from './cache.ts';
import type { BinRef } from './command-plan.ts';
import { openPackageSource, unpackPackages } from './debian.ts';
import { compilePython, type Interpreter, runPython } from './python.ts';
import { ensurePython } from './system.ts';

const VERSION = 1;
/** Debian's package of pip as a file that Python can run. */
const PIP_PACKAGE = 'python3-pip-whl';

export interface PipStage {
  /** The environment. */
  venv: string;
  digest: string;
}

/** The stage for these specs, installed when absent. Rejects with `app-install-failed`. */
export async function ensurePipStage(
  cacheDir: string,
  specs: readonly string[],
  progress: Progress,
): Promise<PipStage> {
  const python = await ensurePython(cacheDir, progress);
  const sorted = [...new Set(specs)].sort();
  const digest = digestOf({ kind: 'pip', version: VERSION, specs: sorted, python: python.digest });
  const folder = await ensureBuilt(
    cacheDir,
    'pip',
    digest,
    (to) => install(cacheDir, to, sorted, python.interpreter, progress),
    progress,
  );
  return { venv: join(folder, 'venv'), digest };
}

async function install(
  cacheDir: string,
  to: string,
  specs: readonly string[],
  interpreter: Interpreter,
  progress: Progress,
): Promise<void> {
  progress(`installing ${specs.join(' ')}`);
  const [venv, pip, report] = [join(to, 'venv'), join(to, 'pip'), join(to, 'report.json')];
  const source = await openPackageSource(cacheDir, PIP_PACKAGE, progress);
  await unpackPackages(source, [PIP_PACKAGE], pip);
  const wheels = join(pip, 'usr/share/python-wheels');
  const wheel = (await readdir(wheels)).find((name) => /^pip-.*\.whl$/.test(name));
  if (wheel === undefined) throw new MachineError('app-install-failed', `the package ${PIP_PACKAGE} holds no pip`);
  const code = 'app-install-failed';
  await runPython(interpreter, interpreter.path, ['-I', '-m', 'venv', '--without-pip', '--symlinks', venv], { code });
  const executable = join(venv, 'bin/python');
  const flags = ['--only-binary', ':all:', '--no-compile', '--no-input', '--no-warn-script-location'];
  const quiet = ['--disable-pip-version-check', '--progress-bar', 'off', '--report', report];
  try {
    await runPython(interpreter, executable, [join(wheels, wheel, 'pip'), 'install', ...flags, ...quiet, ...specs], {
      code,
      cwd: to,
      onLine: (line) => {
        if (line.startsWith('Installing collected')) progress(line.slice(0, 200).toLowerCase());
      },
    });
  } catch (error) {
    throw error instanceof MachineError ? explained(error, interpreter) : error;
  }
  await compilePython(interpreter, join(venv, 'lib'), venv);
  await settle(venv, interpreter);
  await writeFile(
    join(to, 'lock.json'),
    JSON.stringify({ wanted: specs, pip: resolvedIn(await readFile(report, 'utf8')) }),
  );
  await rm(report);
  await rm(pip, { recursive: true });
}

/** pip's word for "there are only sources" is that there is nothing. */
function explained(error: MachineError, interpreter: Interpreter): MachineError {
  const what = /No matching distribution found for (\S+)/.exec(error.detail ?? '')?.[1];
  if (what === undefined) return error;
  const why = `${what} has no wheel for Python ${interpreter.version} on Linux x86-64 (or there is no such version)`;
  const say = `${why}. Packages that exist as source only are not built here: choose another version, or an OCI image`;
  return new MachineError('app-install-failed', say, error.detail === undefined ? {} : { detail: error.detail });
}

/** Makes the environment one that lies anywhere in a machine: its interpreter is the machine's. */
async function settle(venv: string, interpreter: Interpreter): Promise<void> {
  await writeFile(
    join(venv, 'pyvenv.cfg'),
    `home = /usr/bin\ninclude-system-site-packages = false\nversion = ${interpreter.version}\n`,
  );
  const bin = join(venv, 'bin');
  for (const name of await readdir(bin)) {
    const path = join(bin, name);
    if (/^(activate|Activate)/.test(name)) await rm(path);
    else if ((await lstat(path)).isSymbolicLink()) await rm(path);
    else {
      const text = await readFile(path, 'latin1');
      // Both forms in which installers write it: plain, and by way of a shell where the path is long.
      const settled = text.replace(
        /^(#!.*\bpython[\d.]*\s*\n|#!\/bin\/sh\n'''exec'.*\n' '''\n)/,
        '#!/usr/bin/env python3\n',
      );
      if (settled !== text) await writeFile(path, settled, 'latin1');
    }
  }
  for (const name of ['python', 'python3', `python${interpreter.version}`]) {
    await symlink(`/usr/bin/python${interpreter.version}`, join(bin, name));
  }
}

interface Resolved {
  name: string;
  version: string;
  sha256?: string;
}

/** From pip's installation report (pip's documentation, "Installation Report"). */
function resolvedIn(report: string): Resolved[] {
  const { install } = JSON.parse(report) as {
    install: {
      metadata: { name: string; version: string };
      download_info?: { archive_info?: { hashes?: { sha256?: string } } };
    }[];
  };
  return install.map(({ metadata: { name, version }, download_info: info }) => {
    const sha256 = info?.archive_info?.hashes?.sha256;
    return { name, version, ...(sha256 === undefined ? {} : { sha256 }) };
  });
}

/**
 * Path of a package's program relative to the environment: the one asked for, else the package's only one. Rejects with
 * `app-bin-missing`, listing what there is.
 */
export async function findScript(stage: PipStage, bin: BinRef): Promise<string> {
  const wanted = bin.name ?? bin.package;
  const all = (await readdir(join(stage.venv, 'bin'))).filter((name) => !/^python[\d.]*$/.test(name));
  if (all.includes(wanted)) return join('bin', wanted);
  const own = await scriptsOf(stage.venv, bin.package);
  if (bin.name === bin.package && own.length === 1 && own[0] !== undefined) return join('bin', own[0]);
  const choice = all.length === 0 ? 'there are none' : `there are: ${all.join(', ')}`;
  throw new MachineError('app-bin-missing', `${bin.package} has no program "${wanted}"; ${choice}`);
}

/** The programs that a distribution names itself (PyPA, "Entry points specification"). */
async function scriptsOf(venv: string, distribution: string): Promise<string[]> {
  const normal = (name: string) => name.toLowerCase().replaceAll(/[-_.]+/g, '-');
  for (const library of await readdir(join(venv, 'lib'))) {
    const packages = join(venv, 'lib', library, 'site-packages');
    for (const name of await readdir(packages)) {
      const match = /^(.+)-[^-]+\.dist-info$/.exec(name)?.[1];
      if (match === undefined || normal(match) !== normal(distribution)) continue;
      const text = await readFile(join(packages, name, 'entry_points.txt'), 'utf8').catch(() => '');
      const section = /^\[console_scripts\]\s*$([^[]*)/m.exec(text)?.[1] ?? '';
      return [...section.matchAll(/^\s*([^=\s]+)\s*=/gm)].map((found) => found[1] ?? '');
    }
  }
  return [];
}
