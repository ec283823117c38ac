/**
 * Owns one run of the official conformance CLI against a URL, as a child with a bounded lifetime.
 */
import { spawn } from 'node:child_process';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { startProxy } from './proxy.ts';
import type { Check, SuiteResult } from './results.ts';
import { readResults, scenarioOf } from './results.ts';

/** What the suite can judge by. */
export const REVISIONS = ['2025-06-18', '2025-11-25', '2026-07-28'] as const;
export type Revision = (typeof REVISIONS)[number];

export interface SuiteOptions {
  /** Where the server under test answers; the suite's DNS rebinding scenario needs a localhost name. */
  url: string;
  revision: Revision;
  /** An empty or absent folder, for the CLI's own results. */
  outDir: string;
  /** Sent with every request, for a server that wants a token. */
  headers?: Record<string, string>;
  /** Default twenty minutes, after which the child is killed and what it left is read. */
  timeoutMs?: number;
  /** Runs one scenario instead of the whole revision. */
  scenario?: string;
}

export async function runSuite(options: SuiteOptions): Promise<SuiteResult> {
  await mkdir(options.outDir, { recursive: true });
  const proxy = options.headers && (await startProxy(options.url, options.headers));
  try {
    const output = await runCli({ ...options, url: proxy?.url ?? options.url });
    return readResults(output, await readChecks(options.outDir));
  } finally {
    await proxy?.close();
  }
}

/** The revisions with a frozen list of requirements are judged by it; the older one by the suite's own filter. */
function selection({ revision, scenario }: SuiteOptions): string[] {
  if (scenario) return ['--scenario', scenario, '--spec-version', revision];
  return revision === '2025-06-18' ? ['--spec-version', revision] : ['--requirements', revision];
}

/** Everything the CLI printed. Its exit code says no more than the results do. */
function runCli(options: SuiteOptions): Promise<string> {
  const manifest = createRequire(import.meta.url).resolve('@modelcontextprotocol/conformance/package.json');
  const cli = join(dirname(manifest), 'dist/index.js');
  const args = [cli, 'server', '--url', options.url, ...selection(options), '-o', options.outDir];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: options.timeoutMs ?? 1_200_000,
      killSignal: 'SIGKILL',
    });
    let output = '';
    const collect = (chunk: Buffer) => {
      output += chunk.toString();
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    child.once('error', reject);
    child.once('close', (_code, signal) => resolve(signal ? `${output}\nKilled by ${signal}\n` : output));
  });
}

async function readChecks(outDir: string): Promise<Map<string, Check[]>> {
  const checksOf = new Map<string, Check[]>();
  for (const directory of await readdir(outDir)) {
    const scenario = scenarioOf(directory);
    if (!scenario) continue;
    const written = await readFile(join(outDir, directory, 'checks.json'), 'utf8').catch(() => undefined);
    if (written) checksOf.set(scenario, JSON.parse(written));
  }
  return checksOf;
}
