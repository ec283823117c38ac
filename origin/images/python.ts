/**
 * The machines' own Python, run on the host from the folder that its packages were unpacked into: with that folder's
 * libraries and loader, so the host needs no Python and what is installed fits the machine exactly.
 */
import { access, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../vm/command.ts';
import { MachineError } from '../vm/error.ts';

export interface Interpreter {
  /** Such as "3.11". */
  version: string;
  /** The executable, within the folder. */
  path: string;
  /** The standard library. */
  library: string;
  /** Command and arguments that go before the executable. */
  loader: readonly string[];
}

const LIBRARIES = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu'];
const LOADER = 'ld-linux-x86-64.so.2';

/** Rejects with `image-build-failed` when the folder has none. */
export async function interpreterIn(root: string): Promise<Interpreter> {
  const programs = await readdir(join(root, 'usr/bin')).catch((): string[] => []);
  const version = programs.map((name) => /^python(3\.\d+)$/.exec(name)?.[1]).find((found) => found !== undefined);
  const folders = LIBRARIES.map((folder) => join(root, folder));
  const loaders = await Promise.all(
    folders.map((folder) =>
      access(join(folder, LOADER)).then(
        () => join(folder, LOADER),
        () => undefined,
      ),
    ),
  );
  const loader = loaders.find((path) => path !== undefined);
  if (version === undefined || loader === undefined) {
    throw new MachineError('image-build-failed', 'the distribution has no Python that machines could run');
  }
  return {
    version,
    path: join(root, 'usr/bin', `python${version}`),
    library: join(root, 'usr/lib', `python${version}`),
    loader: [loader, '--library-path', folders.join(':')],
  };
}

/** Runs `executable` (the interpreter itself, or the one of an environment made with it). Rejects with `code`. */
export async function runPython(
  interpreter: Interpreter,
  executable: string,
  args: readonly string[],
  options: { code: 'app-install-failed' | 'image-build-failed'; cwd?: string; onLine?: (line: string) => void },
): Promise<string> {
  const [loader = '', ...prefix] = interpreter.loader;
  const env = { LC_ALL: 'C.UTF-8', PYTHONHOME: undefined, PYTHONPATH: undefined, PYTHONDONTWRITEBYTECODE: '1' };
  return run(loader, [...prefix, executable, ...args], { ...options, env, timeoutMs: 900_000 });
}

/**
 * Compiles a folder of Python files so that the result is valid wherever and whenever the folder is read: images hold no
 * times. `root` is the part of the folder's path that is not there in the machine.
 */
export async function compilePython(interpreter: Interpreter, folder: string, root: string): Promise<void> {
  const flags = [
    '-I',
    '-m',
    'compileall',
    '-q',
    '-j',
    '2',
    '--invalidation-mode',
    'unchecked-hash',
    '-s',
    root,
    '-p',
    '/',
  ];
  // Packages carry templates and files for other versions that do not compile: those alone stay as they are.
  await runPython(interpreter, interpreter.path, [...flags, folder], { code: 'image-build-failed' }).catch(
    () => undefined,
  );
}
