/**
 * Owns how the Worker becomes one file for a bare workerd, with the configured edge servers inside.
 *
 * A bundle is reused while nothing that went into it has changed: `<outFile>.json` names the inputs with their digests.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BuildFailure, build, type Message } from 'esbuild';
import { z } from 'zod';
import { EDGE_SERVERS_MODULE, edgeServersModule } from './edge-servers-module.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ENTRY = join(ROOT, 'edge/worker.ts');
/** Raised when the settings below change, so that no older bundle passes for a new one. */
const BUNDLER = 1;

export interface BundleOptions {
  /** Where modules of edge servers look for what they import, before they look beside Moorage. */
  readonly configDir: string;
  /** Name to absolute path. */
  readonly edgeServers: Readonly<Record<string, string>>;
  readonly outFile: string;
}

/** The Worker cannot be built: nearly always a fault in an edge server's module, which the message shows with its line. */
export class BundleError extends Error {
  constructor(problems: readonly string[]) {
    super(`The edge could not be built:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.name = 'BundleError';
  }
}

const manifestSchema = z.object({ key: z.string(), inputs: z.record(z.string(), z.string()) });

/** Writes the bundle to `outFile` unless it is up to date. @throws BundleError. */
export async function bundleWorker(options: BundleOptions): Promise<{ reused: boolean }> {
  const { configDir, edgeServers, outFile } = options;
  const key = digest(JSON.stringify([BUNDLER, configDir, edgeServers]));
  if (await isCurrent(outFile, key)) return { reused: true };
  await mkdir(dirname(outFile), { recursive: true });
  const result = await build({
    entryPoints: [ENTRY],
    bundle: true,
    write: false,
    metafile: true,
    format: 'esm',
    target: 'es2024',
    conditions: ['workerd', 'worker', 'browser'],
    mainFields: ['browser', 'module', 'main'],
    external: ['cloudflare:*'],
    absWorkingDir: ROOT,
    outfile: outFile,
    // A server in a folder without packages of its own still finds the MCP SDK, which comes with Moorage.
    nodePaths: [join(configDir, 'node_modules'), join(ROOT, 'node_modules')],
    logLevel: 'silent',
    plugins: [
      {
        name: 'edge-servers',
        setup(builder) {
          builder.onResolve({ filter: new RegExp(`^${EDGE_SERVERS_MODULE}$`) }, () => ({
            path: EDGE_SERVERS_MODULE,
            namespace: 'moorage',
          }));
          builder.onLoad({ filter: /.*/, namespace: 'moorage' }, () => ({
            contents: edgeServersModule(edgeServers),
            loader: 'js',
            resolveDir: configDir,
          }));
        },
      },
    ],
  }).catch((thrown: unknown) => {
    throw isBuildFailure(thrown) ? new BundleError(thrown.errors.map(describe)) : thrown;
  });
  const output = result.outputFiles[0];
  if (!output) throw new BundleError(['esbuild gave no output']);
  const inputs = await digests(Object.keys(result.metafile.inputs).filter((input) => !input.startsWith('moorage:')));
  await replace(outFile, output.contents);
  await replace(`${outFile}.json`, JSON.stringify({ key, inputs }));
  return { reused: false };
}

async function isCurrent(outFile: string, key: string): Promise<boolean> {
  try {
    await readFile(outFile);
    const manifest = manifestSchema.parse(JSON.parse(await readFile(`${outFile}.json`, 'utf8')));
    if (manifest.key !== key) return false;
    const now = await digests(Object.keys(manifest.inputs));
    return Object.entries(manifest.inputs).every(([input, before]) => now[input] === before);
  } catch {
    // No bundle, no manifest, or an input that is gone: built anew either way.
    return false;
  }
}

async function digests(inputs: readonly string[]): Promise<Record<string, string>> {
  const pairs = inputs.map(async (input) => [input, digest(await readFile(resolve(ROOT, input)))] as const);
  return Object.fromEntries(await Promise.all(pairs));
}

const digest = (data: string | Uint8Array): string => createHash('sha256').update(data).digest('hex');

/** Whole or not at all: a workerd that starts meanwhile must not read half a file. */
async function replace(path: string, contents: string | Uint8Array): Promise<void> {
  await writeFile(`${path}.new`, contents);
  await rename(`${path}.new`, path);
}

function isBuildFailure(thrown: unknown): thrown is BuildFailure {
  return thrown instanceof Error && 'errors' in thrown && Array.isArray(thrown.errors);
}

function describe({ text, location }: Message): string {
  const where = location ? `${location.file}:${location.line}: ` : '';
  const hint = /Could not resolve "(node:|fs"|path"|crypto"|child_process")/.test(text)
    ? ' (an edge server runs in a Worker, without modules of Node: give it runtime "vm" if it needs them)'
    : '';
  return `${where}${text}${hint}`;
}
