/**
 * Owns the clients too heavy for the project's own dependencies: npm packages at pinned versions, installed on demand
 * into folders of their own under `$MOORAGE_CACHE/clients` or `~/.cache/moorage/clients`.
 *
 * A folder is a set of clients that go together: a dependency that two of them want in different versions stays apart.
 */
import { spawn } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const sets = {
  commands: {
    '@modelcontextprotocol/inspector': '2.12.0',
    mcporter: '0.12.3',
    'mcp-remote': '0.15.1',
  },
  frameworks: {
    '@ai-sdk/mcp': '2.0.99',
    '@openai/agents': '0.20.0',
    '@mastra/mcp': '2.0.0',
    '@langchain/mcp-adapters': '1.1.4',
  },
  gemini: { '@google/gemini-cli': '0.61.0' },
} as const;

type SetName = keyof typeof sets;
export type Installed = { [S in SetName]: keyof (typeof sets)[S] }[SetName];

export function clientsDir(): string {
  return join(process.env.MOORAGE_CACHE ?? join(homedir(), '.cache', 'moorage'), 'clients');
}

/** The script behind a package's command, installed when it is not. */
export async function commandOf(name: Installed, command: string): Promise<string> {
  return join(await installed(name), 'node_modules', '.bin', command);
}

/** A package as a module, installed when it is not. `T` is what its caller uses of it. */
export async function load<T>(name: Installed): Promise<T> {
  const path = createRequire(join(await installed(name), 'package.json')).resolve(name);
  return (await import(pathToFileURL(path).href)) as T;
}

export function versionOf(name: Installed): string {
  return new Map<string, string>(Object.entries(sets[setOf(name)])).get(name) as string;
}

function setOf(name: Installed): SetName {
  return (Object.keys(sets) as SetName[]).find((set) => Object.hasOwn(sets[set], name)) as SetName;
}

const installing = new Map<SetName, Promise<void>>();

async function installed(name: Installed): Promise<string> {
  const set = setOf(name);
  const folder = join(clientsDir(), set);
  const started = installing.get(set) ?? install(folder, Object.entries(sets[set]));
  installing.set(set, started);
  await started;
  return folder;
}

async function install(folder: string, wanted: readonly (readonly [string, string])[]): Promise<void> {
  const present = await Promise.all(wanted.map(([name, version]) => isAt(folder, name, version)));
  if (present.every(Boolean)) return;
  await mkdir(folder, { recursive: true });
  const specs = wanted.map(([name, version]) => `${name}@${version}`);
  await command('npm', ['install', '--prefix', folder, '--save-exact', '--no-audit', '--no-fund', ...specs]);
}

async function isAt(folder: string, name: string, version: string): Promise<boolean> {
  const text = await readFile(join(folder, 'node_modules', name, 'package.json'), 'utf8').catch(() => '{}');
  return (JSON.parse(text) as { version?: string }).version === version;
}

/** Runs an installer to its end, with the Node that runs this first on its path. @throws with its last words. */
export function command(file: string, args: readonly string[]): Promise<void> {
  const path = [dirname(process.execPath), process.env.PATH ?? ''].join(delimiter);
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, PATH: path } });
    let complained = '';
    child.stderr.on('data', (chunk: Buffer) => {
      complained = (complained + chunk.toString()).slice(-2000);
    });
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${file} ${args[0]} failed with ${code}: ${complained}`)),
    );
  });
}
