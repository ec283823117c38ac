/**
 * Owns `moorage up`: everything on this machine, in order (state, host, edge, agent, images), told step by step, and the
 * way back when it is stopped.
 *
 * This is the composition root: the only module that knows both halves. They still meet only over HTTP and the link.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { type RunningEdge, startEdge } from '../edge/local/edge.ts';
import { type RunningAgent, startAgent } from '../origin/agent.ts';
import { defaultCacheDir } from '../origin/images/cache.ts';
import { ensureMachineImage } from '../origin/images/machine-image.ts';
import { type Log, openLog } from '../origin/log.ts';
import { Machines } from '../origin/machines.ts';
import { machineDefinitions, serverDefinitions } from '../origin/server.ts';
import { evictLeftover } from '../origin/vm/disk.ts';
import { MachineError } from '../origin/vm/error.ts';
import { inspectHost, installHost } from '../origin/vm/host.ts';
import { QemuDriver } from '../origin/vm/qemu.ts';
import { type Config, isEdgeServer, parseConfig } from '../shared/config.ts';
import { loadKeys, publicHalf, releaseState, socketPath, takeState, UsageError } from './state.ts';
import { summary } from './summary.ts';
import { VERSION } from './version.ts';

export interface UpOptions {
  readonly config: string;
  readonly state: string | undefined;
  readonly port: number | undefined;
  /** Install what is missing without asking. */
  readonly yes: boolean;
}

const NO_ISOLATION =
  'WARNING: servers with runtime "vm" run as plain processes: they see your files and network, share your user, have no limits, and one can disturb another.';

/** Serves until it is told to stop (SIGINT, SIGTERM). @returns the exit code. @throws ConfigError, UsageError. */
export async function up(options: UpOptions): Promise<number> {
  const config = readConfig(options.config);
  const configDir = dirname(resolve(options.config));
  const stateDir = resolve(options.state ?? join(configDir, '.moorage'));
  takeState(stateDir);
  const log = openLog(join(stateDir, 'logs'), (line) => process.stdout.write(`${line}\n`));
  try {
    for (const warning of config.warnings) log.warn(warning);
    return await serve({ config, configDir, stateDir, log, options });
  } finally {
    releaseState(stateDir);
  }
}

interface Context {
  readonly config: Config;
  readonly configDir: string;
  readonly stateDir: string;
  readonly log: Log;
  readonly options: UpOptions;
}

async function serve({ config, configDir, stateDir, log, options }: Context): Promise<number> {
  const stopped = new Promise<void>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => done());
  });
  const keys = await loadKeys(stateDir);
  const servers = serverDefinitions(config);
  const definitions = machineDefinitions(servers);
  const cacheDir = defaultCacheDir();
  for (const { key } of definitions) await evictLeftover(join(stateDir, 'machines', key));

  const wantsVm = definitions.some((definition) => definition.runtime === 'vm');
  const driver = wantsVm && (await hostReady(options.yes, log)) ? new QemuDriver({ cacheDir }) : undefined;
  const fallback = wantsVm && !driver;
  const accelerator = driver ? await chooseAccelerator(driver, cacheDir, log) : 'none';

  const machines = new Machines({ definitions, stateDir, cacheDir, configDir, log, ...(driver ? { driver } : {}) });
  const listen = agentAddress(config, stateDir);
  const edgeServers = [...config.servers].flatMap(([name, entry]) =>
    isEdgeServer(entry) ? [[name, resolve(configDir, entry.tools)]] : [],
  );
  const edgeAt = (port: number) =>
    startEdge({
      host: config.edge.host,
      port,
      stateDir: join(stateDir, 'edge'),
      configDir,
      edgeServers: Object.fromEntries(edgeServers) as Record<string, string>,
      edgeKey: JSON.stringify(keys.edge),
      sessionSecret: keys.sessionSecret,
      origins: [{ id: config.origin.id, key: publicHalf(keys.origin), address: listen.address }],
      log: (line) => log.warn(`edge: ${line}`),
    });
  const edge = await edgeAt(options.port ?? config.edge.port);
  let agent: RunningAgent | undefined;
  try {
    if (servers.length > 0) {
      agent = await startAgent({
        originId: config.origin.id,
        key: keys.origin,
        edgeKey: publicHalf(keys.edge),
        edgeUrl: edge.url,
        listen: listen.where,
        version: VERSION,
        servers,
        machines,
        journalPath: join(stateDir, 'streams.db'),
        log,
      });
      await prepare(machines, log);
      await agent.ready;
    }
    process.stdout.write(`\n${summary({ config, url: edge.url, accelerator, fallback })}\n`);
    return await keepEdge(edge, () => edgeAt(edge.port), stopped, log);
  } finally {
    await agent?.stop();
  }
}

/** Ends of the edge that are answered by another start, at most, within one run. */
const MAX_EDGE_STARTS = 10;

/** Starts the edge again when it ends by itself. Its sessions are on disk. @returns 0 when asked to stop, else 1. */
async function keepEdge(
  first: RunningEdge,
  again: () => Promise<RunningEdge>,
  stopped: Promise<void>,
  log: Log,
): Promise<number> {
  let edge = first;
  for (let starts = 0; starts < MAX_EDGE_STARTS; starts++) {
    const end = await Promise.race([stopped, edge.exited]);
    if (end === undefined) {
      log.info('stopping');
      await edge.stop();
      return 0;
    }
    log.warn(`the edge ended by itself (${end.signal ?? `code ${end.code}`}) and is started again`);
    edge = await again();
  }
  log.error(`the edge ended ${MAX_EDGE_STARTS} times. Its last words are in the log.`);
  return 1;
}

/** Images that cannot be built leave their servers unusable, and the others served. */
async function prepare(machines: Machines, log: Log): Promise<void> {
  try {
    await machines.prepare();
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    log.error(`${error.message}${error.detail ? `\n${error.detail}` : ''}`);
  }
}

async function hostReady(yes: boolean, log: Log): Promise<boolean> {
  const report = await inspectHost();
  if (report.ok) return true;
  log.warn(`microVMs need what this host lacks: ${report.missing.join(', ')}`);
  const supported = !report.missing.includes('linux-x86_64') && !report.missing.includes('apt-get');
  if (supported) {
    log.info(`This installs it:\n\n  ${report.installCommand}\n`);
    if (yes || (await agreed())) {
      try {
        await installHost((line) => log.info(line));
        return true;
      } catch (error) {
        if (!(error instanceof MachineError)) throw error;
        log.error(error.message);
      }
    } else log.info('Run it, or start with --yes, to have isolation.');
  }
  log.warn(NO_ISOLATION);
  return false;
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

async function chooseAccelerator(driver: QemuDriver, cacheDir: string, log: Log): Promise<'kvm' | 'tcg'> {
  const image = await ensureMachineImage(cacheDir, (text) => log.info(text));
  const { accelerator, reason } = await driver.accelerator(image);
  if (accelerator === 'tcg') log.warn(`KVM does not work here, machines are emulated and slow: ${reason}`);
  else log.info('machines run on KVM');
  return accelerator;
}

function agentAddress(config: Config, stateDir: string) {
  const { listen } = config.origin;
  if (listen === undefined) {
    const socket = socketPath(stateDir);
    return { address: `unix:${socket}`, where: { socket } };
  }
  const at = listen.lastIndexOf(':');
  return {
    address: listen,
    where: { host: listen.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(listen.slice(at + 1)) },
  };
}

function readConfig(file: string): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new UsageError(
      code === 'ENOENT'
        ? `There is no ${file} here. Write one, or name it with --config.`
        : `${file} cannot be read (${code}).`,
    );
  }
  return parseConfig(text);
}
