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
import { CLIENT_ONLY } from './config/common.ts';
import { DEFAULT_EDGE, type EdgeConfig, edgeSchema, exposureProblems, exposureWarnings } from './config/edge.ts';
import { parseEntry, type ServerEntry } from './config/entry.ts';
import { memoryBudget } from './config/limits.ts';
import { serverName } from './config/name.ts';
import { type CallerLimits, callerLimits } from './config/quotas.ts';
import { machineProblems } from './config/shared-machines.ts';
import { type SshConfig, ssh } from './config/ssh.ts';

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
  for (const name of Object.keys(limits?.servers ?? {}))
    if (!servers.has(name)) warnings.push(`limits.servers: no server is named "${name}" here`);
  return { servers, edge, auth, audit, origin, aggregate, access, limits, ssh, warnings };
}

function describe(error: z.ZodError, prefix: readonly string[]): string[] {
  return error.issues.map((issue) => {
    const path = [...prefix, ...issue.path.map(String)].join('.');
    const message = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message;
    return path ? `${path}: ${message}` : message;
  });
}
