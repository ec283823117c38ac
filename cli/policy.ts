/** Owns `moorage policy explain`: what the configuration's `access` decides for a caller, rule by rule. */
import type { AccessRule } from '../shared/config/access.ts';
import { type Decision, decide, type Reason, type Use } from '../shared/policy.ts';
import type { Principal } from '../shared/principal.ts';
import { type Command, type Input, textOf } from './command.ts';
import { readConfig } from './config-file.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `policy explain [--as SUBJECT] [options] <server> [<tool>]

Says whether a caller may use a server, or one thing of it, and what each rule of "access" has to do with it. Exits with 1
when it may not.

  --as SUBJECT        the caller's subject, such as "https://id.example|alice" (default: anonymous)
  --group GROUP       a group of the caller; may be repeated
  --claim NAME=VALUE  a claim of its token; may be repeated
  --token NAME        it came with the token of this name
  --prompt            the name is a prompt's
  --resource          the name is a resource's URI
  --arguments JSON    the arguments of the call (default: any that are allowed)
  --json              the decision as JSON
`,
  options: {
    as: { type: 'string' },
    group: { type: 'string', multiple: true },
    claim: { type: 'string', multiple: true },
    token: { type: 'string' },
    prompt: { type: 'boolean', default: false },
    resource: { type: 'boolean', default: false },
    arguments: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const [action, server, name, ...more] = input.positionals;
    if (action !== 'explain' || server === undefined || more.length > 0) {
      throw new UsageError('Say "moorage policy explain --as alice <server> <tool>". See "moorage help policy".');
    }
    const { access, servers } = readConfig(input.config);
    const decision = decide(access, principalOf(input), useOf(input, server, name));
    const known = servers.has(server) ? '' : `There is no server "${server}" in ${input.config}.\n`;
    process.stdout.write(
      input.values.json ? `${JSON.stringify(decision)}\n` : `${known}${explained(decision, access)}`,
    );
    return decision.allow ? 0 : 1;
  },
};

function useOf(input: Input, server: string, name: string | undefined): Use {
  if (name === undefined) return { kind: 'server', server };
  if (input.values.prompt) return { kind: 'prompt', server, name };
  if (input.values.resource) return { kind: 'resource', server, name };
  const text = textOf(input, 'arguments');
  return { kind: 'tool', server, name, ...(text === undefined ? {} : { arguments: jsonOf(text) }) };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError('--arguments takes JSON, such as \'{"path": "/tmp/a"}\'.');
  }
}

function principalOf(input: Input): Principal {
  const token = textOf(input, 'token');
  const claims = listOf(input, 'claim').map((text) => {
    const at = text.indexOf('=');
    if (at < 1) throw new UsageError('--claim takes NAME=VALUE.');
    return [text.slice(0, at), text.slice(at + 1)] as const;
  });
  return {
    subject: textOf(input, 'as') ?? (token === undefined ? 'anonymous' : `token|${token}`),
    issuer: 'asked',
    groups: listOf(input, 'group'),
    scopes: [],
    claims: Object.fromEntries(
      [...Map.groupBy(claims, ([claim]) => claim)].map(([claim, all]) => [claim, all.map(([, value]) => value)]),
    ),
    credential: token === undefined ? { kind: 'jwt' } : { kind: 'token', id: token },
  };
}

function listOf(input: Input, name: string): readonly string[] {
  const value = input.values[name];
  return Array.isArray(value) ? value : [];
}

/** A decision for people. */
export function explained({ allow, trace }: Decision, access: readonly AccessRule[] | undefined): string {
  if (access === undefined)
    return 'allowed: the configuration has no "access", so whoever is let in may use everything.\n';
  const denied = trace.find(({ effect, reason }) => effect === 'deny' && reason === 'applies');
  const allowed = trace.find(({ effect, reason }) => effect === 'allow' && reason === 'applies');
  const why = denied
    ? `access.${denied.rule} denies it, and a rule that denies wins`
    : allowed
      ? `access.${allowed.rule} allows it, and no rule denies it`
      : 'no rule allows it';
  const rows = trace.map(({ rule, effect, reason }) => {
    const who = access[rule]?.who.join(', ') ?? '';
    return [`access.${rule}`, effect, who, wordsOf(reason)];
  });
  return `${allow ? 'allowed' : 'refused'}: ${why}.\n${rows.length > 0 ? `\n${table(['RULE', 'EFFECT', 'WHO', 'HERE'], rows)}` : ''}`;
}

function wordsOf(reason: Reason): string {
  switch (reason) {
    case 'applies':
      return 'applies';
    case 'caller':
      return 'is about other callers';
    case 'server':
      return 'is about other servers';
    case 'kind':
      return 'is about something else of the server';
    case 'name':
      return 'is about other names';
    default:
      return `does not hold for ${reason}`;
  }
}
