/**
 * Owns `moorage.jsonc`: its schema, its defaults, and the errors that name the field at fault.
 *
 * The `mcpServers` block is what people already paste into their MCP client; members that only clients use are accepted
 * and reported as ignored, anything else unknown is an error (a misspelt limit must not pass in silence).
 */
import { type ParseError, parse, printParseErrorCode } from 'jsonc-parser';
import { z } from 'zod';
import { type Access, access, unknownServers } from './config/access.ts';
import { type AuditConfig, auditSchema, DEFAULT_AUDIT } from './config/audit.ts';
import { type AuthConfig, authSchema, LOOPBACK_ONLY } from './config/auth.ts';
import { DEFAULT_EDGE, type EdgeConfig, edgeSchema, exposureProblems, exposureWarnings } from './config/edge.ts';
import { egress } from './config/egress.ts';
import { health } from './config/health.ts';
import { image, isOciImage } from './config/image.ts';
import { type Isolation, isolation } from './config/isolation.ts';
import { LIMIT_NAMES, limits, memoryBudget } from './config/limits.ts';
import { output } from './config/output.ts';
import { type CallerLimits, callerLimits } from './config/quotas.ts';
import { areReferencesWhole, secrets } from './config/secrets.ts';
import { type SshConfig, ssh } from './config/ssh.ts';

/** First path segments that are ours; a server cannot have such a name. */
export const RESERVED_NAMES: readonly string[] = [
  'mcp',
  'sse',
  'messages',
  'admin',
  'healthz',
  'metrics',
  'authorize',
  'token',
  'register',
  'callback',
];

/** A server's name is a path segment: letters, digits, dot, dash and underscore, 63 at most, not starting with a sign. */
export const serverName = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    'use letters, digits, ".", "-" and "_" (at most 63, a letter or digit first)',
  )
  .refine((name) => !RESERVED_NAMES.includes(name), 'this name is reserved for a path of Moorage itself');

/** Durations such as `90s`, `30m`, `24h` or `7d`, as seconds. */
const duration = z
  .string()
  .regex(/^[1-9][0-9]{0,5}[smhd]$/, 'write a duration such as "30m" or "24h"')
  .transform(
    (text) => Number(text.slice(0, -1)) * { s: 1, m: 60, h: 3600, d: 86_400 }[text.at(-1) as 's' | 'm' | 'h' | 'd'],
  );

/** Of servers at an origin. */
const discovery = {
  /** Whether initialize and lists are answered from stored copies, without waking the server. */
  discovery: z.enum(['cached', 'live']).optional(),
  /** Copies older than this are fetched anew. */
  discoveryMaxAge: duration.optional(),
};

/** A duration in milliseconds; `never` is `Infinity`. */
const idleTime = z.union([
  duration.transform((seconds) => seconds * 1_000),
  z.literal('never').transform(() => Number.POSITIVE_INFINITY),
]);

/** When an idle machine sleeps, counted from its last use: see docs/servers.md. */
const sleep = z.union(
  [
    z.literal('always-on'),
    z.strictObject({
      pauseAfter: idleTime.optional(),
      hibernateAfter: idleTime.optional(),
      stopAfter: idleTime.optional(),
    }),
  ],
  { error: (issue) => sleepFault(issue.input) },
);

/** A union names none of its members' faults: those of the object are what its writer wants to know. */
function sleepFault(input: unknown): string {
  if (typeof input !== 'object' || input === null) return 'write "always-on" or { "pauseAfter": "10s", … }';
  for (const [name, value] of Object.entries(input)) {
    if (!idleTime.safeParse(value).success) return `${name}: write a duration such as "10s", "5m" or "7d", or "never"`;
  }
  return 'write "always-on" or { "pauseAfter": "10s", … }';
}

/** Members of other programs' `mcpServers` entries that say nothing to a router. */
const CLIENT_ONLY = [
  'disabled',
  'autoApprove',
  'alwaysAllow',
  'timeout',
  'description',
  'name',
  'icon',
  'gallery',
  'trust',
] as const;
const clientOnly = Object.fromEntries(CLIENT_ONLY.map((key) => [key, z.unknown().optional()])) as Record<
  (typeof CLIENT_ONLY)[number],
  z.ZodOptional<z.ZodUnknown>
>;

/** Which sessions share a process: see docs/servers.md. */
const sharing = z.enum(['auto', 'session', 'shared']).default('auto');

const machineEntry = z.strictObject({
  /** MCP clients name the transport here; a command is always reached over its pipes. */
  type: z.literal('stdio').optional(),
  runtime: z.enum(['vm', 'process']).default('vm'),
  /** May be left out where a container image says what is started. */
  command: z.string().min(1).optional(),
  args: z.array(z.string()).default([]),
  env: z
    .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'this is not a name of an environment variable'), z.string())
    .default({}),
  /** A folder beside the configuration that goes into the machine's image, read-only base of the server's working directory. */
  files: z.string().min(1).optional(),
  image,
  /** Servers that name the same machine share one. */
  machine: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'use lower case letters, digits and "-"')
    .optional(),
  isolation: isolation.optional(),
  process: sharing,
  limits: limits.default({}),
  health: health.optional(),
  /** What it may connect to: nothing, without it. */
  egress: egress.optional(),
  /** Names of what it gets from the origin's store, each in a variable of its environment. */
  secrets: secrets.optional(),
  ...discovery,
  sleep: sleep.optional(),
  ...output,
  ...clientOnly,
});
const machineServer = machineEntry
  .refine(({ command, image }) => command !== undefined || isOciImage(image), {
    path: ['command'],
    error: 'say how the server is started, or give a container image',
  })
  .refine(({ runtime, image }) => runtime === 'vm' || !isOciImage(image), {
    path: ['image'],
    error: 'a container image runs in a microVM: leave out "runtime"',
  })
  .superRefine(({ env, secrets = [] }, context) => {
    for (const [at, { env: name }] of secrets.entries()) {
      if (Object.hasOwn(env, name))
        context.addIssue({ code: 'custom', path: ['secrets', at], message: `"env" sets ${name} already` });
    }
  });

const TRANSPORTS = {
  auto: 'auto',
  http: 'http',
  'streamable-http': 'http',
  streamableHttp: 'http',
  sse: 'sse',
} as const;
const transport = z.enum(Object.keys(TRANSPORTS) as (keyof typeof TRANSPORTS)[], {
  error: 'use "auto" (Streamable HTTP, then SSE), "http" or "sse"',
});

const httpServer = z
  .strictObject({
    runtime: z.literal('http').default('http'),
    /** Address as the origin reaches it, such as a container's port on loopback. */
    url: z
      .url({ protocol: /^https?$/, error: 'write an address such as "http://127.0.0.1:3000/mcp"' })
      .refine((url) => !hasCredentials(url), 'put credentials into "headers", not into the address'),
    /** Sent with every request. Values may hold `${secret:NAME}`; they stay at the origin. */
    headers: z
      .record(
        z
          .string()
          .regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'this is not a name of an HTTP header')
          .refine((name) => !OWN_HEADERS.has(name.toLowerCase()), 'the router sets this header itself'),
        z
          .string()
          .regex(/^[\x20-\x7e\t]*$/, 'an HTTP header holds visible ASCII characters only')
          .refine(areReferencesWhole, `write a reference to a secret as "\${secret:NAME}"`),
      )
      .default({}),
    transport: transport.optional(),
    /** How MCP clients spell `transport`. */
    type: transport.optional(),
    process: sharing,
    ...discovery,
    ...output,
    ...clientOnly,
  })
  .refine(({ transport, type }) => !transport || !type || TRANSPORTS[transport] === TRANSPORTS[type], {
    path: ['type'],
    error: '"transport" says otherwise: give one of the two',
  })
  .transform(({ transport, type, ...entry }) => ({ ...entry, transport: TRANSPORTS[transport ?? type ?? 'auto'] }));

/** Headers that the transport decides (2025-11-25 and 2026-07-28, basic/transports). */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  'accept',
  'connection',
  'content-length',
  'content-type',
  'host',
  'last-event-id',
  'mcp-method',
  'mcp-name',
  'mcp-protocol-version',
  'mcp-session-id',
  'transfer-encoding',
]);

function hasCredentials(url: string): boolean {
  const parsed = URL.parse(url);
  return parsed !== null && (parsed.username !== '' || parsed.password !== '');
}

const edgeServer = z.strictObject({
  type: z.unknown().optional(),
  runtime: z.literal('edge'),
  /** Module whose default export makes an MCP server; a path relative to the configuration. */
  tools: z.string().min(1),
  ...output,
  ...clientOnly,
});

export type MachineServer = z.infer<typeof machineServer>;
export type HttpServer = z.infer<typeof httpServer>;
export type EdgeServer = z.infer<typeof edgeServer>;
/** What an origin serves. */
export type OriginServer = MachineServer | HttpServer;
export type ServerEntry = OriginServer | EdgeServer;
export const isEdgeServer = (entry: ServerEntry): entry is EdgeServer => entry.runtime === 'edge';
export const isHttpServer = (entry: ServerEntry): entry is HttpServer => entry.runtime === 'http';

const globs = z
  .array(z.string().regex(/^!?[A-Za-z0-9._*-]{1,128}$/, 'write a glob such as "notes*" or "!*__delete_*"'))
  .min(1);

export const configSchema = z.strictObject({
  $schema: z.string().optional(),
  mcpServers: z.record(z.string(), z.unknown()),
  edge: edgeSchema.default(DEFAULT_EDGE),
  /** Which credentials the edge takes. Default: none are needed on the host itself. */
  auth: authSchema.default(LOOPBACK_ONLY),
  /** What `/mcp`, all servers as one, shows. */
  aggregate: z
    .strictObject({ servers: globs.default(['*']), tools: globs.default(['*']) })
    .default({ servers: ['*'], tools: ['*'] }),
  access: access.optional(),
  audit: auditSchema.default(DEFAULT_AUDIT),
  limits: callerLimits.optional(),
  /** The way into machines for people; absent: none. */
  ssh: ssh.optional(),
  origin: z
    .strictObject({
      id: z
        .string()
        .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'use lower case letters, digits and "-"')
        .default('local'),
      /** Loopback TCP instead of the Unix socket, for tunnels that cannot reach a socket. */
      listen: z
        .string()
        .regex(/^(127\.0\.0\.1|\[::1\]):[0-9]{1,5}$/, 'write "127.0.0.1:PORT"')
        .optional(),
      /** Of all machines that are awake; the default is three quarters of the host's memory. */
      memory: memoryBudget.optional(),
      /** Sleeping machines for which a hypervisor waits, started ahead of their wake. */
      standby: z.number().int().min(0).max(64).default(0),
    })
    .default({ id: 'local', standby: 0 }),
});

/** What `moorage.jsonc` holds, before it is checked: for programs that write it as an object. */
export type ConfigInput = z.input<typeof configSchema>;

export interface Config {
  readonly servers: ReadonlyMap<string, ServerEntry>;
  readonly edge: EdgeConfig;
  readonly auth: AuthConfig;
  readonly audit: AuditConfig;
  readonly aggregate: { readonly servers: readonly string[]; readonly tools: readonly string[] };
  /** Who may use what; undefined: whoever is let in may use everything. */
  readonly access?: Access | undefined;
  /** How much callers may ask for; undefined: as much as they like. */
  readonly limits?: CallerLimits | undefined;
  readonly ssh?: SshConfig | undefined;
  readonly origin: {
    readonly id: string;
    readonly listen?: string | undefined;
    /** MiB. */
    readonly memory?: number | undefined;
    /** Machines. */
    readonly standby: number;
  };
  /** Things that were read and have no effect, worth one line to the owner. */
  readonly warnings: readonly string[];
}

/** A configuration that cannot be used. `problems` has one line per fault, each naming its field. */
export class ConfigError extends Error {
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${problems.length === 1 ? 'a fault' : `${problems.length} faults`}:\n${problems.map((p) => `  - ${p}`).join('\n')}`,
    );
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** Text of `moorage.jsonc` (JSON with comments and trailing commas) to a configuration. @throws ConfigError. */
export function parseConfig(text: string): Config {
  const syntax: ParseError[] = [];
  const value: unknown = parse(text, syntax, { allowTrailingComma: true, disallowComments: false });
  const first = syntax[0];
  if (first) {
    const line = text.slice(0, first.offset).split('\n').length;
    throw new ConfigError([`line ${line}: this is not JSON (${printParseErrorCode(first.error)})`]);
  }
  return parseConfigObject(value);
}

/** The value of such a text, as a program writes it, to a configuration. @throws ConfigError. */
export function parseConfigObject(value: unknown): Config {
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) throw new ConfigError(describe(parsed.error, []));
  const problems: string[] = [];
  const warnings: string[] = [];
  const servers = new Map<string, ServerEntry>();
  for (const [name, entry] of Object.entries(parsed.data.mcpServers)) {
    const checkedName = serverName.safeParse(name);
    if (!checkedName.success) problems.push(...describe(checkedName.error, ['mcpServers', name]));
    const checked = parseEntry(entry);
    if (!checked.success) problems.push(...describe(checked.error, ['mcpServers', name]));
    else {
      servers.set(name, checked.data);
      if (checked.data.runtime === 'process' && checked.data.sleep !== undefined)
        warnings.push(`mcpServers.${name}: sleep has no effect on a plain process`);
      if (checked.data.runtime === 'process' && checked.data.image !== undefined)
        warnings.push(`mcpServers.${name}: image has no effect on a plain process`);
      if (checked.data.runtime === 'edge' && checked.data.pins !== undefined)
        warnings.push(
          `mcpServers.${name}: pins has no effect at the edge: its tools change with your deployment alone`,
        );
      if (checked.data.runtime === 'process' && checked.data.egress !== undefined)
        warnings.push(`mcpServers.${name}: egress has no effect on a plain process: it has the host's whole network`);
    }
    const ignored = CLIENT_ONLY.filter((key) => typeof entry === 'object' && entry !== null && key in entry);
    if (ignored.length > 0)
      warnings.push(`mcpServers.${name}: ${ignored.join(', ')} ${ignored.length > 1 ? 'have' : 'has'} no effect here`);
  }
  problems.push(...machineProblems(servers), ...exposureProblems(parsed.data.edge, parsed.data.auth));
  warnings.push(...exposureWarnings(parsed.data.edge));
  if (servers.size === 0 && problems.length === 0) problems.push('mcpServers: add at least one server');
  if (problems.length > 0) throw new ConfigError(problems);
  const { edge, auth, audit, origin, aggregate, access, limits, ssh } = parsed.data;
  warnings.push(...unknownServers(access ?? [], new Set(servers.keys())));
  return { servers, edge, auth, audit, origin, aggregate, access, limits, ssh, warnings };
}

function parseEntry(entry: unknown): z.ZodSafeParseResult<ServerEntry> {
  const shape: Record<string, unknown> = typeof entry === 'object' && entry !== null ? { ...entry } : {};
  if (shape.runtime === 'edge') return edgeServer.safeParse(entry);
  const isHttp = shape.runtime === 'http' || (shape.runtime === undefined && 'url' in shape && !('command' in shape));
  return isHttp ? httpServer.safeParse(entry) : machineServer.safeParse(entry);
}

/** Servers of one machine run in one guest: they must agree on where and how large it is. */
function machineProblems(servers: ReadonlyMap<string, ServerEntry>): string[] {
  const problems: string[] = [];
  const seen = new Map<string, { name: string; entry: MachineServer }>();
  for (const [name, entry] of servers) {
    if (isEdgeServer(entry) || isHttpServer(entry)) continue;
    const isolation = isolationOf(entry);
    if (entry.runtime === 'process' && isolation !== 'server')
      problems.push(`mcpServers.${name}.isolation: plain processes are not kept apart: use the runtime "vm"`);
    const machine = machineOf(name, entry);
    const other = seen.get(machine);
    if (!other) {
      seen.set(machine, { name, entry });
      continue;
    }
    if (other.entry.machine === undefined && entry.machine === undefined) {
      problems.push(
        `mcpServers.${name}: its machine would be named like that of "${other.name}": rename it or set "machine"`,
      );
    }
    if (other.entry.runtime !== entry.runtime) {
      problems.push(`mcpServers.${name}.runtime: "${other.name}" shares machine "${machine}" and has another runtime`);
    }
    if (isolationOf(other.entry) !== isolation)
      problems.push(
        `mcpServers.${name}.isolation: "${other.name}" shares machine "${machine}" and has another isolation: give both the same`,
      );
    else if (isolation === 'session')
      problems.push(
        `mcpServers.${name}.machine: the machine of a session belongs to one server, "${other.name}" cannot share it`,
      );
    for (const key of LIMIT_NAMES) {
      const [a, b] = [other.entry.limits[key], entry.limits[key]];
      if (a !== undefined && b !== undefined && a !== b) {
        problems.push(
          `mcpServers.${name}.limits.${key}: "${other.name}" shares machine "${machine}" and says otherwise`,
        );
      }
    }
  }
  return problems;
}

/**
 * The machine that a server runs in: the one it names, else one of its own, named after it. A server that is reached over
 * HTTP has none; its key cannot be that of a machine.
 */
export function machineOf(name: string, entry: OriginServer): string {
  if (isHttpServer(entry)) return `http:${name.toLowerCase()}`;
  return entry.machine ?? name.toLowerCase().replaceAll(/[^a-z0-9-]/g, '-');
}

/** What gets a machine of its own. */
export const isolationOf = (entry: OriginServer): Isolation =>
  isHttpServer(entry) ? 'server' : (entry.isolation ?? 'server');

function describe(error: z.ZodError, prefix: readonly string[]): string[] {
  return error.issues.map((issue) => {
    const path = [...prefix, ...issue.path.map(String)].join('.');
    const message = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message;
    return path ? `${path}: ${message}` : message;
  });
}
