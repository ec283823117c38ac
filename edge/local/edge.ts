/**
 * Owns a local edge: a bare workerd as a child of this process, from its bundle to its end.
 *
 * Within `stateDir`: `worker.js` (the bundle), `config.capnp`, `storage/` (the objects' databases), `workerd.pid`.
 * Invariant: at most one workerd runs on a state folder; one that an earlier, crashed start left behind is ended first.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { bundleWorker } from './bundle.ts';
import { type AggregateSettings, type EdgeSettings, type WorkerdOrigin, workerdConfig } from './workerd-config.ts';

/** Path of the binary for this platform: the package is CommonJS and has no types. */
const { default: WORKERD } = createRequire(import.meta.url)('workerd') as { readonly default: string };
/** How long workerd may take until it listens. */
const LISTEN_WITHIN_MS = 30_000;
/** How long it may take to end on its own: open streams keep it, and their clients reconnect anyway. */
const END_WITHIN_MS = 1_000;
/** Traces of an origin's missing socket: the caller is told what to do, and addresses of workerd help nobody. */
const NOISE = /^stack: |^workerd\/jsg\/util\.c\+\+:\d+: error: .*No such file or directory/;
/** Lines of its output that are kept to explain a start that failed. */
const KEPT_LINES = 20;

const EVERYTHING: AggregateSettings = { servers: ['*'], tools: ['*'] };

export interface EdgeOptions {
  /** Address to listen on. One that others can reach takes `settings` that ask them who they are. */
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** Folder of the edge's own: storage, bundle, pid. */
  readonly stateDir: string;
  readonly configDir: string;
  /** Name to absolute path of the module. */
  readonly edgeServers: Readonly<Record<string, string>>;
  /** Private Ed25519 key, a JWK as JSON. */
  readonly edgeKey: string;
  /** 32 bytes of text or more; sessions do not outlive a change. */
  readonly sessionSecret: string;
  readonly origins: readonly WorkerdOrigin[];
  /** What `/mcp` shows. Default: everything. */
  readonly aggregate?: AggregateSettings | undefined;
  /** Ends streams of calls that are silent for this long, in milliseconds. */
  readonly endIdleAfterMs?: number | undefined;
  /** Further secrets of `env.ts` by the names of their bindings. */
  readonly secrets?: Readonly<Record<`MOORAGE_${string}`, string>> | undefined;
  /** Further settings by the names of their bindings. Default: `loopback` is the only kind of authentication. */
  readonly settings?: EdgeSettings | undefined;
  /** Listens on this Unix socket too, for the front that ends TLS (`tls.ts`). */
  readonly frontSocket?: string | undefined;
  /** Issuers of credentials are on this host: the Worker may fetch from its loopback addresses. */
  readonly loopbackFetch?: boolean | undefined;
  /** Takes each line that workerd writes. */
  readonly log: (line: string) => void;
}

export interface RunningEdge {
  /** `http://127.0.0.1:8787`, without a slash at the end. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Settles when workerd has ended, for whatever reason. */
  readonly exited: Promise<{ readonly code: number | null; readonly signal: string | null }>;
  /** Ends workerd. Open streams are cut. */
  stop(): Promise<void>;
}

/** workerd did not start; the message has what it said. */
export class EdgeStartError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'EdgeStartError';
  }
}

/** Builds the edge and runs it; resolves when it listens. @throws BundleError, EdgeStartError. */
export async function startEdge(options: EdgeOptions): Promise<RunningEdge> {
  const { stateDir, port, configDir, edgeServers } = options;
  const host = options.host === 'localhost' ? '127.0.0.1' : options.host;
  const storage = join(stateDir, 'storage');
  const config = join(stateDir, 'config.capnp');
  const pidFile = join(stateDir, 'workerd.pid');
  await mkdir(storage, { recursive: true, mode: 0o700 });
  await bundleWorker({ configDir, edgeServers, outFile: join(stateDir, 'worker.js') });
  await writeFile(
    config,
    workerdConfig({
      host,
      port,
      worker: 'worker.js',
      storage,
      origins: options.origins,
      aggregate: options.aggregate ?? EVERYTHING,
      endIdleAfterMs: options.endIdleAfterMs,
      secrets: Object.keys(options.secrets ?? {}),
      settings: options.settings,
      loopbackFetch: options.loopbackFetch,
      frontSocket: options.frontSocket,
    }),
  );
  await endLeftover(pidFile, config);
  if (options.frontSocket !== undefined) await rm(options.frontSocket, { force: true });

  const child = spawn(WORKERD, ['serve', '--control-fd=3', config], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    // A group of its own: Ctrl-C reaches this process alone, which ends things in their order.
    detached: true,
    env: { ...options.secrets, MOORAGE_EDGE_KEY: options.edgeKey, MOORAGE_SESSION_SECRET: options.sessionSecret },
  });
  const exited = endOf(child);
  const said: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue;
    createInterface({ input: stream }).on('line', (line) => {
      if (NOISE.test(line)) return;
      if (said.push(line) > KEPT_LINES) said.shift();
      options.log(line);
    });
  }
  let listening: number;
  try {
    await writeFile(pidFile, String(child.pid));
    listening = await listeningPort(child, exited);
  } catch (thrown) {
    await end(child, exited);
    throw thrown instanceof EdgeStartError ? explained(thrown, said, `${host}:${port}`) : thrown;
  }
  // A wildcard is no address to connect to.
  const near = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  const name = near.includes(':') ? `[${near}]` : near;
  return {
    url: `http://${name}:${listening}`,
    port: listening,
    pid: child.pid ?? 0,
    exited,
    stop: async () => {
      await end(child, exited);
      await rm(pidFile, { force: true });
    },
  };
}

type Exit = Awaited<RunningEdge['exited']>;

function endOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    // A binary that cannot be run never exits.
    child.once('error', () => resolve({ code: null, signal: null }));
  });
}

const listenEvent = z.object({ event: z.literal('listen'), socket: z.literal('http'), port: z.number().int() });

/** The port that workerd reports on its control descriptor. */
async function listeningPort(child: ChildProcess, exited: Promise<Exit>): Promise<number> {
  const control = createInterface({ input: child.stdio[3] as Readable });
  const listening = new Promise<number>((resolve) => {
    control.on('line', (line) => {
      const event = listenEvent.safeParse(JSON.parse(line));
      if (event.success) resolve(event.data.port);
    });
  });
  const timer = new AbortController();
  try {
    return await Promise.race([
      listening,
      exited.then(({ code, signal }) => {
        throw new EdgeStartError(`workerd ended before it listened (${signal ?? `code ${code}`})`);
      }),
      delay(LISTEN_WITHIN_MS, undefined, { signal: timer.signal }).then(() => {
        throw new EdgeStartError(`workerd does not listen after ${LISTEN_WITHIN_MS / 1000} s`);
      }),
    ]);
  } finally {
    timer.abort();
    control.close();
  }
}

async function end(child: ChildProcess, exited: Promise<Exit>): Promise<void> {
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), END_WITHIN_MS);
  await exited;
  clearTimeout(timer);
}

/** Ends a workerd that an earlier start left behind. Its command line names our configuration, or it is not ours. */
async function endLeftover(pidFile: string, config: string): Promise<void> {
  const pid = Number(await readFile(pidFile, 'utf8').catch(() => ''));
  if (!Number.isInteger(pid) || pid <= 1) return;
  const isOurs = async () => {
    const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
    return argv.includes('serve') && argv.includes(config);
  };
  for (let waited = 0; await isOurs(); waited += 50) {
    try {
      process.kill(pid, waited < END_WITHIN_MS ? 'SIGTERM' : 'SIGKILL');
    } catch {
      // It ended between the look and the signal.
      break;
    }
    await delay(50);
  }
  await rm(pidFile, { force: true });
}

function explained(error: EdgeStartError, said: readonly string[], address: string): EdgeStartError {
  const text = said.join('\n');
  if (/address already in use/i.test(text)) {
    return new EdgeStartError(`Port taken: something else listens on ${address}. Stop it or choose another edge.port.`);
  }
  return new EdgeStartError(`The edge did not start: ${error.message}.\n${text}`);
}
