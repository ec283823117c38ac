/**
 * Owns a whole router inside one process: state folder, edge, agent and machines, started in order and stopped in the
 * reverse one. `moorage up` and `moorage stdio` are this and a terminal; a program imports it as `moorage`.
 *
 * This is the composition root: the only module that knows both halves. They still meet only over HTTP and the link.
 * Invariants: nothing is ever installed from here; whatever was started is stopped when a later step fails.
 */
import { join, resolve } from 'node:path';
import { startEdge } from '../edge/local/edge.ts';
import { type RunningTls, startTls } from '../edge/local/tls.ts';
import { type Log, openLog } from '../origin/log.ts';
import { hasLocalIssuer } from '../shared/config/auth.ts';
import { isEdgeServer } from '../shared/config/entry.ts';
import { type Config, type ConfigInput, parseConfigObject } from '../shared/config.ts';
import { type ClientConfig, clientConfig } from './client-config.ts';
import { checkOriginAccess } from './edge-access.ts';
import { edgeSettings } from './edge-settings.ts';
import type { Fallback } from './isolation.ts';
import { keepEdge } from './keep-edge.ts';
import { type Mount, mountAt } from './mount.ts';
import { originHalf, type ServedFork } from './origin-half.ts';
import {
  type HolderKind,
  loadKeys,
  loadOwnerKey,
  publicHalf,
  socketPath,
  type TakenState,
  takeState,
} from './state.ts';

export { ConfigError, type ConfigInput } from '../shared/config.ts';
export type { ClientConfig } from './client-config.ts';
export { RouterError, type RouterErrorCode } from './error.ts';
export type { Fallback } from './isolation.ts';
export type { ServedFork } from './origin-half.ts';

export interface RouterOptions {
  /** Paths in the configuration are relative to this folder. Default: the working directory. */
  readonly configDir?: string;
  /** Keys, sessions, disks and logs; one router at a time. Default: `.moorage` in `configDir`. */
  readonly stateDir?: string;
  /** Loopback port of the edge. Default 0, a free one; `edge.port` of the configuration is for `moorage up`. */
  readonly port?: number;
  /**
   * Where clients reach the router when the program mounts `handler` or `fetch`, with the path that is mounted:
   * `https://tools.example.com/mcp`. Its path is what is stripped, its host is one that requests may name, and it is
   * what `clientConfig` tells. Default: the edge's own URL.
   */
  readonly baseUrl?: string;
  /** What becomes of servers with runtime `vm` where this host cannot run them. Default `refuse`. */
  readonly fallback?: Fallback;
  /** Servers whose images are built before the router is ready: the others' first call waits. Default: all. */
  readonly prepare?: readonly string[];
  /** Takes lines for the owner, level info and above; everything is in `<stateDir>/logs` anyway. */
  readonly log?: (line: string) => void;
}

export interface Router extends Mount {
  /** Base URL of the edge on loopback, without a slash at its end. A server is at `<url>/<server>/mcp`. */
  readonly url: string;
  /** Where clients reach it: `edge.publicUrl`, else where TLS is ended (`edge.tls`), else `url`. */
  readonly clientUrl: string;
  /** What separates machines from the host: `none` where no server needs a machine. */
  readonly isolation: 'vm' | 'process' | 'none';
  /** How microVMs run; undefined where there are none, or none was prepared. */
  readonly accelerator: 'kvm' | 'tcg' | undefined;
  /** Resolves when the router has ended: `closed` by `close`, or `failed` (the log has the reason; call `close` still). */
  readonly ended: Promise<'closed' | 'failed'>;
  /** Copies of live machines that are served beside the servers of the configuration: they come and go. */
  forks(): readonly ServedFork[];
  /** `mcpServers` for a client that speaks Streamable HTTP, with the servers of the configuration. */
  clientConfig(): ClientConfig;
  /** Ends everything and gives the state folder back. Calls in flight get a few seconds; open streams are cut. */
  close(): Promise<void>;
}

/**
 * Starts a router for what `moorage.jsonc` would hold; resolves when it serves.
 * @throws ConfigError, RouterError, BundleError (an edge server's module has a fault), EdgeStartError.
 */
export async function createRouter(config: ConfigInput, options: RouterOptions = {}): Promise<Router> {
  return await startRouter(parseConfigObject(config), options, 'program');
}

/** As `createRouter`, for a configuration that was parsed. `kind` is what others are told about who uses the folder. */
export async function startRouter(config: Config, options: RouterOptions, kind: HolderKind): Promise<Router> {
  const configDir = resolve(options.configDir ?? '.');
  const stateDir = resolve(options.stateDir ?? join(configDir, '.moorage'));
  const base = baseOf(options.baseUrl);
  const state = takeState(stateDir, kind);
  const undo: (() => void | Promise<void>)[] = [() => state.release()];
  const close = once(async () => {
    for (const step of undo.reverse()) await step();
  });
  try {
    const log = openLog(join(stateDir, 'logs'), options.log ?? (() => {}));
    return await compose({ config, options, configDir, stateDir, base, state, log, undo, close });
  } catch (error) {
    await close();
    throw error;
  }
}

interface Composition {
  readonly config: Config;
  readonly options: RouterOptions;
  readonly configDir: string;
  readonly stateDir: string;
  readonly base: URL | undefined;
  readonly state: TakenState;
  readonly log: Log;
  /** Takes the way back of each step that was done. */
  readonly undo: (() => void | Promise<void>)[];
  readonly close: () => Promise<void>;
}

async function compose(composition: Composition): Promise<Router> {
  const { options, configDir, stateDir, base, state, log, undo, close } = composition;
  for (const warning of composition.config.warnings) log.warn(warning);
  const keys = await loadKeys(stateDir);
  const owner = publicHalf(await loadOwnerKey(stateDir));
  const origin = await originHalf(composition.config, { ...options, configDir, stateDir, log });
  const { config } = origin;
  const edgeServers = [...config.servers].flatMap(([name, entry]): [string, string][] =>
    isEdgeServer(entry) ? [[name, resolve(configDir, entry.tools)]] : [],
  );
  const { tls } = config.edge;
  const frontSocket = tls && socketPath(stateDir, 'edge.sock');
  const edge = await keepEdge(
    (port) =>
      startEdge({
        // Behind the front that ends TLS it is reached from this host alone.
        host: tls ? '127.0.0.1' : config.edge.host,
        port,
        frontSocket,
        stateDir: join(stateDir, 'edge'),
        configDir,
        edgeServers: Object.fromEntries(edgeServers),
        aggregate: config.aggregate,
        endIdleAfterMs: config.edge.streams?.endIdleAfterMs,
        settings: edgeSettings(config, owner),
        loopbackFetch: hasLocalIssuer(config.auth),
        edgeKey: JSON.stringify(keys.edge),
        secrets: {
          ...(keys.nextEdge ? { MOORAGE_NEXT_EDGE_KEY: JSON.stringify(keys.nextEdge) } : {}),
          ...secretsOf(process.env),
        },
        sessionSecret: keys.sessionSecret,
        origins: [{ id: config.origin.id, key: publicHalf(keys.origin), address: origin.address }],
        log: (line) => log.warn(`edge: ${line}`),
      }),
    tls ? 0 : (options.port ?? 0),
    log,
  );
  let front: RunningTls | undefined;
  undo.push(async () => {
    await front?.stop();
    await edge.stop();
    await origin.stop();
  });
  await origin.start({
    originId: config.origin.id,
    key: () => Promise.resolve(keys.origin),
    edgeKeys: [publicHalf(keys.edge)],
    // Both halves read them from the same folder.
    onEdgeKeys: () => undefined,
    edgeUrl: edge.url,
    edgeHeaders: {},
  });
  if (tls && frontSocket !== undefined) {
    front = await startTls({
      host: config.edge.host,
      port: options.port ?? 0,
      cert: resolve(configDir, tls.cert),
      key: resolve(configDir, tls.key),
      clientCa: tls.clientCa && resolve(configDir, tls.clientCa),
      socketPath: frontSocket,
      log: (line) => log.info(line),
    });
  }
  const clientUrl =
    config.edge.publicUrl ?? (front ? `https://${bracketed(config.edge.host)}:${front.port}` : edge.url);
  state.publish(edge.url);
  await origin.prepare();
  return {
    url: edge.url,
    clientUrl,
    isolation: origin.isolation,
    accelerator: origin.accelerator,
    ended: edge.ended,
    forks: () => origin.forks(),
    ...mountAt(edge, base),
    clientConfig: () => clientConfig(config, base?.href.replace(/\/$/, '') ?? clientUrl),
    close,
  };
}

const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host);

function baseOf(text: string | undefined): URL | undefined {
  if (text === undefined) return undefined;
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol) && url.search === '' && url.hash === '') return url;
  throw new TypeError(`baseUrl must be an http(s) URL such as "https://tools.example.com/mcp", not "${text}".`);
}

/** Secrets of the edge that its owner gives by the environment. @throws RouterError `bad_access`. */
function secretsOf(env: NodeJS.ProcessEnv): Record<`MOORAGE_${string}`, string> {
  const given = (['MOORAGE_UPSTREAM_SECRET', 'MOORAGE_ORIGIN_ACCESS'] as const).flatMap((name) => {
    const value = env[name];
    if (value && name === 'MOORAGE_ORIGIN_ACCESS') checkOriginAccess(value);
    return value ? [[name, value] as const] : [];
  });
  return Object.fromEntries(given);
}

function once(run: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => {
    running ??= run();
    return running;
  };
}
