/**
 * Published clients log their user in at the built-in authorization server: `moorage up` as a child, mcp-remote and the
 * inspector as their users start them, and a real Chromium in which somebody types the one-time code and agrees.
 */
import { execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Stream } from 'node:stream';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { withHome } from '../clients/child.ts';
import { commandOf } from '../clients/install.ts';
import { startBrowser } from '../support/browser.ts';
import { moorageUp, project, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const { dir, state } = project({
  mcpServers: { time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') } },
  auth: { oauth: {} },
});
let moorage: Running;
let browser: Browser;

beforeAll(async () => {
  browser = await startBrowser();
  moorage = await moorageUp(dir);
}, 300_000);
afterAll(async () => {
  await browser?.close();
  await moorage?.stop();
});

/** What a person does: opens the page, reads who asks, types the code, agrees. @returns what the page said. */
async function approve(at: string): Promise<string> {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.goto(at);
    const said = await page.locator('main').innerText();
    const args = [
      'cli/moorage.ts',
      'login',
      'code',
      '--config',
      join(dir, 'moorage.jsonc'),
      '--state',
      state,
      '--json',
    ];
    const { code } = JSON.parse(execFileSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' })) as {
      code: string;
    };
    await page.getByLabel('One-time code').fill(code);
    const back = page.waitForURL((url) => url.pathname.endsWith('/callback'), { waitUntil: 'commit' });
    await page.getByRole('button', { name: 'Allow' }).click();
    await back;
    return said;
  } finally {
    await context.close();
  }
}

/** The first address of our page in what a client prints. */
function addressIn(stream: Stream): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const [found] = /http:\/\/(127\.0\.0\.1|localhost):\d+\/authorize\?[^\s"']+(?=[\s"'])/.exec(text) ?? [];
      if (found !== undefined) resolve(found);
    });
  });
}

test('mcp-remote', { timeout: 300_000 }, async () => {
  const command = await commandOf('mcp-remote', 'mcp-remote');
  await withHome(async ({ path, env }) => {
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: [command, `${moorage.url}/time/mcp`, '--allow-http', '--transport', 'http-only'],
      cwd: path,
      // It opens the page by itself too: with a browser that does nothing.
      env: { ...env, BROWSER: '/bin/true' },
      stderr: 'pipe',
    });
    const client = new Client({ name: 'moorage-test', version: '1.0.0' });
    const connected = client.connect(transport, { timeout: 240_000 });
    if (!transport.stderr) throw new Error('unreachable');
    expect(await approve(await addressIn(transport.stderr))).toContain(`${moorage.url}/time/mcp`);
    await connected;
    expect((await client.listTools()).tools.map(({ name }) => name)).toContain('get_current_time');
    await client.close();
  });
});

test('the inspector', { timeout: 300_000 }, async () => {
  const command = await commandOf('@modelcontextprotocol/inspector', 'mcp-inspector');
  await withHome(async ({ path, env }) => {
    const args = [command, '--cli', `${moorage.url}/time/mcp`, '--transport', 'http', '--method', 'tools/list'];
    // It logs in without a terminal only where it may open a browser by itself.
    const openers = { BROWSER: '/bin/true', MCP_AUTO_OPEN_ENABLED: 'true' };
    const child = spawn(process.execPath, args, { cwd: path, env: { ...env, ...openers } });
    let printed = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        printed += chunk.toString();
      });
    }
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    const asked = await Promise.race([addressIn(child.stderr), addressIn(child.stdout), ended]);
    expect(typeof asked, printed).toBe('string');
    expect(await approve(String(asked))).toContain('wants to use MCP servers');
    expect(await ended).toBe(0);
    expect(printed).toContain('get_current_time');
  });
});
