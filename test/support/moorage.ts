/** Runs `moorage up` as its user does, as a child process, and speaks to it with real clients. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { keepLines } from './run-folder.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

export interface Running {
  readonly url: string;
  readonly child: ChildProcess;
  /** Everything printed so far. */
  output(): string;
  /** SIGTERM, and the exit code. */
  stop(): Promise<number | null>;
  /** kill -9 of `moorage up` alone: nothing gets a chance to say goodbye. */
  kill(): Promise<void>;
}

/** Who runs a command line that is not the tests' own user: `other-user.ts`. */
export interface User {
  /** Stands in front of a command, which then runs in the checkout. */
  readonly prefix: readonly string[];
  readonly node: string;
  readonly env: NodeJS.ProcessEnv;
}

/** A folder with a configuration and room for the state. */
export function project(config: object): { dir: string; state: string } {
  const dir = mkdtempSync(join(tmpdir(), 'moorage-e2e-'));
  writeFileSync(join(dir, 'moorage.jsonc'), JSON.stringify(config));
  return { dir, state: join(dir, 'state') };
}

/** Starts `moorage up` there and waits until it serves. */
export async function moorageUp(
  dir: string,
  options: { port?: number; env?: NodeJS.ProcessEnv; args?: string[]; user?: User } = {},
): Promise<Running> {
  const args = [
    'cli/moorage.ts',
    'up',
    '--config',
    join(dir, 'moorage.jsonc'),
    '--state',
    join(dir, 'state'),
    '--port',
    String(options.port ?? 0),
    ...(options.args ?? []),
  ];
  const { user } = options;
  const [file = '', ...prefix] = user ? [...user.prefix, user.node] : [process.execPath];
  const child = spawn(file, [...prefix, ...args], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: user?.env ?? { ...process.env, ...options.env },
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  void exited.then(() => keepLines([text]));
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.on('data', () => {
      const found = /Moorage serves .* at (https?:\S+)\n/.exec(text);
      if (found?.[1]) resolve(found[1]);
    });
    void exited.then((code) => reject(new Error(`moorage up ended with ${code}:\n${text}`)));
  });
  return {
    url,
    child,
    output: () => text,
    stop: async () => {
      child.kill('SIGTERM');
      return await exited;
    },
    kill: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** Runs another command of the command line beside it. Rejects with what it printed when it fails. */
export async function moorage(dir: string, command: string, ...args: string[]): Promise<string> {
  const where = ['--config', join(dir, 'moorage.jsonc'), '--state', join(dir, 'state')];
  const run = promisify(execFile);
  return (
    await run(process.execPath, ['cli/moorage.ts', command, ...where, ...args], {
      cwd: ROOT,
      maxBuffer: 64 * 1024 * 1024,
    })
  ).stdout;
}

/** The process id of a machine's QEMU. */
export function qemuPid(state: string, machine: string): number {
  return (JSON.parse(readFileSync(join(state, 'machines', machine, 'qemu.pid'), 'utf8')) as { pid: number }).pid;
}

export interface Connected {
  readonly client: Client;
  readonly transport: StreamableHTTPClientTransport;
  /** The text of a tool's first content block; a tool's own error is thrown. */
  text(tool: string, args?: Record<string, unknown>): Promise<string>;
  close(): Promise<void>;
}

/** A first call waits for the image of its machine, which may have to be built. */
const PATIENCE = { timeout: 600_000 };

/** An SDK v2 client at a server's URL. */
export async function connect(url: string, server: string, capabilities: object = {}): Promise<Connected> {
  const client = new Client({ name: 'moorage-test', version: '1.0.0' }, { capabilities });
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/${server}/mcp`));
  await client.connect(transport, PATIENCE);
  return {
    client,
    transport,
    text: async (tool, args = {}) => {
      const result = await client.callTool({ name: tool, arguments: args }, PATIENCE);
      const [block] = result.content as { type: string; text?: string }[];
      if (result.isError) throw new Error(block?.text ?? 'tool error');
      return block?.text ?? '';
    },
    close: () => client.close(),
  };
}
