/**
 * Owns the configuration of a bare workerd that runs the edge (Cap'n Proto text, see workerd.capnp). Pure.
 *
 * Invariant: no secret is in it. Secrets come by the environment of the process, so they are in no file and no argv.
 */
import { CF_HEADER, PROTOCOL_HEADER } from './tls.ts';

/** The runtime that the Worker was written and tested for; `wrangler.toml` says the same. */
export const COMPATIBILITY_DATE = '2026-10-01';
export const COMPATIBILITY_FLAGS = [
  'enable_request_signal',
  'request_signal_passthrough',
  'global_fetch_strictly_public',
] as const;
/** Names of bindings that are read from the environment. */
export const SECRETS = ['MOORAGE_EDGE_KEY', 'MOORAGE_SESSION_SECRET'] as const;
/** A local object costs some 300 kB even when idle, so local sessions share a few. Changing it loses open sessions. */
const SESSION_SHARDS = 16;
/** Storage is found again by these keys: they never change. */
const CLASSES = [
  { binding: 'SESSION', className: 'Session', uniqueKey: 'moorage-session' },
  { binding: 'DIRECTORY', className: 'Directory', uniqueKey: 'moorage-directory' },
  { binding: 'ORIGIN', className: 'Origin', uniqueKey: 'moorage-origin' },
  { binding: 'LANE', className: 'Lane', uniqueKey: 'moorage-lane' },
  { binding: 'AGGREGATE', className: 'Aggregate', uniqueKey: 'moorage-aggregate' },
  { binding: 'TOKENS', className: 'Tokens', uniqueKey: 'moorage-tokens' },
  { binding: 'AUDIT', className: 'Audit', uniqueKey: 'moorage-audit' },
  { binding: 'LIMITER', className: 'Limiter', uniqueKey: 'moorage-limiter' },
  { binding: 'OAUTH', className: 'OAuthStore', uniqueKey: 'moorage-oauth' },
] as const;

export interface WorkerdOrigin {
  readonly id: string;
  /** Public JWK. */
  readonly key: object;
  /** `unix:/path` or `host:port`. */
  readonly address: string;
}

export interface AggregateSettings {
  readonly servers: readonly string[];
  readonly tools: readonly string[];
}

export interface WorkerdOptions {
  readonly host: string;
  readonly port: number;
  /** The bundle, relative to the configuration file. */
  readonly worker: string;
  /** Absolute path of the objects' storage. */
  readonly storage: string;
  readonly origins: readonly WorkerdOrigin[];
  /** What `/mcp` shows: globs over servers' names, and over `server__tool`. */
  readonly aggregate: AggregateSettings;
  /** As `MOORAGE_END_IDLE_AFTER_MS` of `env.ts`. */
  readonly endIdleAfterMs?: number | undefined;
  /** A second address for the front that ends TLS (`tls.ts`): an absolute path of a Unix socket. */
  readonly frontSocket?: string | undefined;
  /** Lets the Worker fetch from loopback addresses, through the binding `LOOPBACK` alone. */
  readonly loopbackFetch?: boolean | undefined;
  /** Names of further secrets, as `SECRETS`. */
  readonly secrets?: readonly string[] | undefined;
  /** Further bindings of `env.ts` by their names: text that is not secret. */
  readonly settings?: EdgeSettings | undefined;
}

/** Bindings of text; undefined ones are not set. */
export type EdgeSettings = Readonly<Record<`MOORAGE_${string}`, string | undefined>>;

/** The text of the configuration file. */
export function workerdConfig(options: WorkerdOptions): string {
  const { host, port, worker, storage, origins, aggregate, endIdleAfterMs, loopbackFetch, frontSocket } = options;
  const settings = { MOORAGE_AUTH: 'loopback', ...options.settings };
  const known = origins.map(({ id, key }) => ({ id, key, service: serviceOf(id) }));
  const bindings = [
    ...CLASSES.map(({ binding, className }) => `(name = ${q(binding)}, durableObjectNamespace = ${q(className)})`),
    ...[...SECRETS, ...(options.secrets ?? [])].map((name) => `(name = ${q(name)}, fromEnvironment = ${q(name)})`),
    ...Object.entries(settings).flatMap(([name, text]) =>
      text === undefined ? [] : [`(name = ${q(name)}, text = ${q(text)})`],
    ),
    `(name = "MOORAGE_SESSION_SHARDS", text = ${q(String(SESSION_SHARDS))})`,
    `(name = "MOORAGE_AGGREGATE", text = ${q(JSON.stringify(aggregate))})`,
    ...(endIdleAfterMs === undefined
      ? []
      : [`(name = "MOORAGE_END_IDLE_AFTER_MS", text = ${q(String(endIdleAfterMs))})`]),
    `(name = "MOORAGE_ORIGINS", text = ${q(JSON.stringify(known))})`,
    ...(loopbackFetch ? ['(name = "LOOPBACK", service = "loopback")'] : []),
    ...origins.map(({ id }) => `(name = ${q(serviceOf(id))}, service = ${q(`origin-${id}`)})`),
    `(name = "ORIGIN_NETWORK", service = "origin-network")`,
  ];
  const namespaces = CLASSES.map(
    ({ className, uniqueKey }) => `(className = ${q(className)}, uniqueKey = ${q(uniqueKey)}, enableSql = true)`,
  );
  const services = [
    `(name = "edge", worker = .edge)`,
    `(name = "storage", disk = (path = ${q(storage)}, writable = true))`,
    ...(loopbackFetch ? ['(name = "loopback", network = (allow = ["127.0.0.0/8", "::1/128"]))'] : []),
    // Enrolled origins alone are reached by it, at the addresses that the owner gave: a tunnel may end on this host.
    `(name = "origin-network", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true)))`,
    ...origins.map(
      ({ id, address }) => `(name = ${q(`origin-${id}`)}, external = (address = ${q(address)}, http = ()))`,
    ),
  ];
  const sockets = [
    `(name = "http", address = ${q(`${bracketed(host)}:${port}`)}, http = (), service = "edge")`,
    ...(frontSocket === undefined ? [] : [frontSocketConfig(frontSocket)]),
  ];
  return `using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [${list(services)}],
  sockets = [${list(sockets)}],
);

const edge :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed ${q(worker)})],
  compatibilityDate = ${q(COMPATIBILITY_DATE)},
  compatibilityFlags = [${COMPATIBILITY_FLAGS.map(q).join(', ')}],
  durableObjectNamespaces = [${list(namespaces)}],
  durableObjectStorage = (localDisk = "storage"),
  bindings = [${list(bindings)}],
);
`;
}

/** What comes here was looked at by the front: it alone says what `request.cf` is, and that the client spoke TLS. */
function frontSocketConfig(path: string): string {
  const http = `http = (cfBlobHeader = ${q(CF_HEADER)}, forwardedProtoHeader = ${q(PROTOCOL_HEADER)})`;
  return `(name = "front", address = ${q(`unix:${path}`)}, ${http}, service = "edge")`;
}

/** The binding of the service that leads to origin `id`. */
const serviceOf = (id: string): string => `ORIGIN_${id.toUpperCase().replaceAll('-', '_')}`;

const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host);

const list = (items: readonly string[]): string => `\n${items.map((item) => `    ${item},\n`).join('')}  `;

/** A string literal of Cap'n Proto text: C-like escapes, which JSON's are too but for \\u. */
function q(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must be escaped
  return `"${text.replace(/["\\]/g, '\\$&').replace(/[\u0000-\u001f\u007f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)}"`;
}
