/** Owns `moorage policy explain`: what `access` decides for a caller, rule by rule. */
import {
  describedPrincipal,
  type ExplainAnswer,
  type ExplainRequest,
  explainAnswer,
  explainRequest,
} from '../shared/explain.ts';
import { decide } from '../shared/policy.ts';
import { adminOf } from './admin.ts';
import { type Command, type Input, textOf, textsOf } from './command.ts';
import { readConfig } from './config-file.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `policy explain [--as SUBJECT] [options] <server> [<tool>]

Says whether a caller may use a server, or one thing of it, and what each rule of "access" has to do with it. Exits with 1
when it may not. It goes by the configuration, or asks a router that runs.

  --as SUBJECT        the caller's subject, such as "https://id.example|alice" (default: anonymous)
  --group GROUP       a group of the caller; may be repeated
  --claim NAME=VALUE  a claim of its token; may be repeated
  --token NAME        it comes with the bearer token of this name
  --prompt            the name is a prompt's
  --resource          the name is a resource's URI
  --arguments JSON    the arguments of the call (default: any that are allowed)
  --running           ask the router that runs here
  --url URL           ask the router there; a token with the scope "admin" is read from MOORAGE_TOKEN
  --json              for programs
`,
  options: {
    as: { type: 'string' },
    group: { type: 'string', multiple: true },
    claim: { type: 'string', multiple: true },
    token: { type: 'string' },
    prompt: { type: 'boolean', default: false },
    resource: { type: 'boolean', default: false },
    arguments: { type: 'string' },
    running: { type: 'boolean', default: false },
    url: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const [action, server, name, ...more] = input.positionals;
    if (action !== 'explain' || server === undefined || more.length > 0) {
      throw new UsageError('Say "moorage policy explain --as alice <server> <tool>". See "moorage help policy".');
    }
    const answer = await answerOf(input, { who: whoOf(input), use: useOf(input, server, name) });
    process.stdout.write(input.values.json ? `${JSON.stringify(answer.decision, null, 2)}\n` : explained(answer));
    return answer.decision.allow ? 0 : 1;
  },
};

async function answerOf(input: Input, request: ExplainRequest): Promise<ExplainAnswer> {
  const url = textOf(input, 'url');
  if (input.values.running || url !== undefined) {
    const client = await adminOf({ config: input.config, state: input.state, url });
    return explainAnswer.parse(await client.post('/policy/explain', explainRequest.parse(request)));
  }
  const { access = null } = readConfig(input.config);
  const { allow, trace } = decide(access ?? undefined, describedPrincipal(request.who), request.use);
  return { decision: { allow, trace: [...trace] }, access: access && [...access] };
}

function useOf(input: Input, server: string, name: string | undefined): ExplainRequest['use'] {
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

function whoOf(input: Input): ExplainRequest['who'] {
  const token = textOf(input, 'token') ?? null;
  const claims = textsOf(input, 'claim').map((text) => {
    const at = text.indexOf('=');
    if (at < 1) throw new UsageError('--claim takes NAME=VALUE.');
    return [text.slice(0, at), text.slice(at + 1)] as const;
  });
  const byName = Map.groupBy(claims, ([name]) => name);
  return {
    subject: textOf(input, 'as') ?? (token === null ? 'anonymous' : `token|${token}`),
    groups: [...textsOf(input, 'group')],
    claims: Object.fromEntries([...byName].map(([name, all]) => [name, all.map(([, value]) => value)])),
    token,
  };
}

/** A decision for people. */
export function explained({ decision: { allow, trace }, access }: ExplainAnswer): string {
  if (access === null)
    return 'allowed: there is no "access" in the configuration, so whoever is let in may use everything.\n';
  const applying = (wanted: 'allow' | 'deny') =>
    trace.find(({ effect, reason }) => effect === wanted && reason === 'applies')?.rule;
  const [denied, allowed] = [applying('deny'), applying('allow')];
  const why =
    denied !== undefined
      ? `access.${denied} denies it, and a rule that denies wins`
      : allowed !== undefined
        ? `access.${allowed} allows it, and no rule denies it`
        : 'no rule allows it';
  const rows = trace.map(({ rule, effect, reason }) => [
    `access.${rule}`,
    effect,
    access[rule]?.who.join(', ') ?? '',
    WORDS.get(reason) ?? `does not hold for ${reason}`,
  ]);
  const rules = rows.length > 0 ? `\n${table(['RULE', 'EFFECT', 'WHO', 'HERE'], rows)}` : '';
  return `${allow ? 'allowed' : 'refused'}: ${why}.\n${rules}`;
}

/** What a reason of the trace means. */
const WORDS: ReadonlyMap<string, string> = new Map([
  ['applies', 'applies'],
  ['caller', 'is about other callers'],
  ['server', 'is about other servers'],
  ['kind', 'is about something else of the server'],
  ['name', 'is about other names'],
]);
