/**
 * Owns `moorage up`: a router at the terminal, told step by step, and the way back when it is stopped. Alone among the
 * users of a router it may install what the host lacks, when it is told to.
 */
import { dirname, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { MachineError } from '../origin/vm/error.ts';
import { inspectHost, installHost } from '../origin/vm/host.ts';
import { startRouter } from '../router/router.ts';
import { type Command, textOf } from './command.ts';
import { readConfig } from './config-file.ts';
import { stateDirOf } from './control.ts';
import { summary } from './summary.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `up [--port PORT] [--yes]

Serves the configured servers on this machine until it is stopped (SIGINT, SIGTERM).

  --port PORT  listen here instead of the configured port
  --yes        install what is missing (QEMU) without asking
`,
  options: { port: { type: 'string' }, yes: { type: 'boolean', default: false } },
  run: async (input) => {
    if (input.positionals.length > 0) throw new UsageError('"moorage up" takes no arguments. See "moorage help up".');
    const { config, state } = input;
    return await up({ config, state, port: portOf(textOf(input, 'port')), yes: input.values.yes === true });
  },
};

function portOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const port = Number(text);
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port;
  throw new UsageError('--port takes a number from 0 to 65535.');
}

export interface UpOptions {
  readonly config: string;
  readonly state: string | undefined;
  readonly port: number | undefined;
  /** Install what is missing without asking. */
  readonly yes: boolean;
}

/**
 * Serves until it is told to stop (SIGINT, SIGTERM). @returns the exit code.
 * @throws ConfigError, UsageError, RouterError, BundleError, EdgeStartError, MachineError.
 */
export async function up(options: UpOptions): Promise<number> {
  const config = readConfig(options.config);
  const stopped = new Promise<'stopped'>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => done('stopped'));
  });
  if ([...config.servers.values()].some((entry) => entry.runtime === 'vm')) await offerInstall(options.yes);
  const configDir = dirname(resolve(options.config));
  const router = await startRouter(
    config,
    {
      configDir,
      stateDir: stateDirOf(options),
      port: options.port ?? config.edge.port,
      fallback: 'process',
      log: say,
    },
    'up',
  );
  try {
    const { clientUrl: url, isolation, accelerator = 'none' } = router;
    const fallback = isolation === 'process';
    say(`\n${summary({ config, forks: router.forks(), url, accelerator, fallback })}`);
    const end = await Promise.race([stopped, router.ended]);
    if (end === 'stopped') say('stopping');
    return end === 'failed' ? 1 : 0;
  } finally {
    await router.close();
  }
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

/** Says what microVMs need that this host lacks, and installs it when its owner agrees. */
async function offerInstall(yes: boolean): Promise<void> {
  const report = await inspectHost();
  if (report.ok) return;
  say(`warning: microVMs need what this host lacks: ${report.missing.join(', ')}`);
  if (report.missing.includes('linux-x86_64') || report.missing.includes('apt-get')) return;
  say(`This installs it:\n\n  ${report.installCommand}\n`);
  if (!yes && !(await agreed())) {
    say('Run it, or start with --yes (npm start -- --yes), to have isolation.');
    return;
  }
  try {
    await installHost(say);
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    say(`error: ${error.message}`);
  }
}

async function agreed(): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) return false;
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^(y|yes|)$/i.test((await terminal.question('Run it now? [Y/n] ')).trim());
  } finally {
    terminal.close();
  }
}
