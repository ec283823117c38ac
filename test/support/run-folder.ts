/**
 * Vitest's global setup for every suite: all temporary folders of a run lie in one, which is searched for secrets when the run
 * ends, and removed. What was logged anywhere in the run (agents' logs, servers' stderr, audit exports) is in it.
 *
 * A secret in a log fails the run. Files that hold secrets by their purpose (keys, databases, disks) are not logs.
 */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What tests plant begins with this: in arguments, headers, secrets, tokens of other systems. */
export const PLANTED = 'planted-secret-';

const SECRETS: readonly (readonly [name: string, pattern: RegExp])[] = [
  ['a planted secret', new RegExp(PLANTED)],
  ['a bearer token of Moorage', /\bmoor_[A-Za-z0-9]{16,}/],
  ['a signed token', /\beyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{20,}/],
  ['a private key', /"d"\s*:\s*"[A-Za-z0-9_-]{40,}"|BEGIN [A-Z ]*PRIVATE KEY/],
];

const LOG = /\.log(\.\d+)?$/;
const MAX_LOG_BYTES = 64 * 1024 * 1024;

/** Shared by the projects of one run: the first makes the folder, the last removes it. */
const shared = globalThis as { moorageRun?: { folder: string; before: string | undefined; users: number } };

export default function setup(): () => void {
  shared.moorageRun ??= begin();
  const run = shared.moorageRun;
  run.users++;
  return () => {
    if (--run.users > 0) return;
    delete shared.moorageRun;
    const found = secretsIn(run.folder);
    if (run.before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = run.before;
    rmSync(run.folder, { recursive: true, force: true });
    if (found.length === 0) return;
    // Thrown away by the runner's teardown, an exception alone would not fail the run.
    process.exitCode = 1;
    throw new Error(`Secrets were logged in this run:\n${found.join('\n')}`);
  };
}

function begin() {
  const before = process.env.TMPDIR;
  // Short: paths of Unix sockets have 107 bytes.
  const folder = mkdtempSync(join(tmpdir(), 'mr-'));
  // Others may pass through: some tests have users of their own.
  chmodSync(folder, 0o711);
  process.env.TMPDIR = folder;
  return { folder, before, users: 0 };
}

/** Keeps lines that a test collected in memory, so that they are searched too: what is removed with the test is not. */
export function keepLines(lines: readonly string[]): void {
  if (lines.length > 0) writeFileSync(join(tmpdir(), `kept-${crypto.randomUUID()}.log`), `${lines.join('\n')}\n`);
}

/** One line a finding: what, and in which file. The secret itself is not told. */
export function secretsIn(folder: string): string[] {
  return logsIn(folder).flatMap((file) => {
    if (statSync(file).size > MAX_LOG_BYTES) return [`${file.slice(folder.length)}: a log of more than 64 MiB`];
    const text = readFileSync(file, 'utf8');
    return SECRETS.filter(([, pattern]) => pattern.test(text)).map(([name]) => `${file.slice(folder.length)}: ${name}`);
  });
}

function logsIn(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return logsIn(path);
    return entry.isFile() && LOG.test(entry.name) ? [path] : [];
  });
}
