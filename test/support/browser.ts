/** A real Chromium, headless, of Debian's package: installed where the suite may (root or passwordless sudo). */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import { type Browser, chromium } from 'playwright-core';

const PATH = '/usr/bin/chromium';
const run = promisify(execFile);

export async function startBrowser(): Promise<Browser> {
  if (!existsSync(PATH)) await install();
  return await chromium.launch({
    executablePath: PATH,
    // As root it has no sandbox of its own; the rest keeps it from looking for hosts that a closed network does not have.
    args: ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-sync'],
  });
}

async function install(): Promise<void> {
  const sudo = process.getuid?.() === 0 ? [] : ['sudo', '-n'];
  const apt = async (...args: string[]) => {
    const [command = '', ...rest] = [...sudo, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-q', ...args];
    await run(command, rest, { maxBuffer: 64 * 1024 * 1024 });
  };
  await apt('update');
  await apt('install', '-y', '--no-install-recommends', 'chromium');
}
