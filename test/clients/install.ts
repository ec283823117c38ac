/**
 * Owns the clients too heavy for the project's own dependencies: installed at pinned versions, on demand, into
 * `$MOORAGE_CACHE/clients` or `~/.cache/moorage/clients`.
 */
import { spawn } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const pinned = {
  '@modelcontextprotocol/inspector': '2.12.0',
  mcporter: '0.12.3',
  'mcp-remote': '0.15.1',
};

export type Installed = keyof typeof pinned;

function clientsDir(): string {
  return join(process.env.MOORAGE_CACHE ?? join(homedir(), '.cache', 'moorage'), 'clients');
}

/** The script behind a package's command. `installClients` has run before. */
export function commandOf(command: string): string {
  return join(clientsDir(), 'node_modules', '.bin', command);
}

export async function versionOf(name: Installed): Promise<string | undefined> {
  const manifest = join(clientsDir(), 'node_modules', name, 'package.json');
  const text = await readFile(manifest, 'utf8').catch(() => undefined);
  return text && (JSON.parse(text) as { version: string }).version;
}

export async function installClients(): Promise<void> {
  const wanted = Object.entries(pinned);
  const present = await Promise.all(wanted.map(([name, version]) => isAt(name as Installed, version)));
  if (present.every(Boolean)) return;
  await mkdir(clientsDir(), { recursive: true });
  const specs = wanted.map(([name, version]) => `${name}@${version}`);
  await npm(['install', '--prefix', clientsDir(), '--save-exact', '--no-audit', '--no-fund', ...specs]);
}

async function isAt(name: Installed, version: string): Promise<boolean> {
  return (await versionOf(name)) === version;
}

function npm(args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] });
    child.once('error', reject);
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`npm install failed with ${code}`))));
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await installClients();
