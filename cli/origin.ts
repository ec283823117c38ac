/** Owns `moorage origin`: origins of an edge, seen from the edge (invite, list, revoke) and from the origin (join, run, rotate). */
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { enrol, loadEnrolled, rotate } from '../router/enrolled.ts';
import { runOrigin } from '../router/run-origin.ts';
import { adminOf } from './admin.ts';
import { type Command, type Input, textOf } from './command.ts';
import { readConfig } from './config-file.ts';
import { stateDirOf } from './control.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

const invited = z.object({ code: z.string(), expiresAt: z.string() });
const listed = z.object({
  origins: z.array(
    z.object({
      id: z.string(),
      url: z.string().optional(),
      servers: z.array(z.string()),
      connected: z.boolean(),
      lastSeen: z.string().nullable(),
    }),
  ),
  invited: z.array(z.object({ id: z.string(), url: z.string(), expiresAt: z.string() })),
});

export const command: Command = {
  usage: `origin <invite|list|revoke|join|run|rotate|status> …

Where an edge runs, its owner says:

  origin invite <id> --at URL   make a code, good once, for a machine whose tunnel leads to URL
                                (https://, or http:// on a loopback address)
  origin list [--json]          the origins, their servers, and which are connected
  origin revoke <id>            trust an origin no more: its link is cut, its servers are gone

On the machine that becomes an origin, its owner says:

  origin join <edge-url> --code CODE   exchange keys with that edge
  origin run                           serve the configured servers to it
  origin rotate                        change this origin's key, while it runs
  origin status                        what this origin belongs to

  --minutes N   how long a code of invite is good (default: 60)
  --url URL     invite, list, revoke: the edge is there, and a token with the scope "admin" for it
                is in MOORAGE_TOKEN. Without it: the edge that runs here

An edge behind Cloudflare Access: its service token in MOORAGE_EDGE_ACCESS, as
{"clientId":"…","clientSecret":"…"}.
`,
  options: {
    at: { type: 'string' },
    code: { type: 'string' },
    minutes: { type: 'string' },
    url: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const [action, ...names] = input.positionals;
    const act = action !== undefined && Object.hasOwn(ACTIONS, action) ? ACTIONS[action] : undefined;
    if (!act) throw new UsageError('Say what to do, such as "moorage origin list". See "moorage help origin".');
    const wanted = ['invite', 'revoke', 'join'].includes(action ?? '') ? 1 : 0;
    if (names.length !== wanted) throw new UsageError(`See "moorage help origin" for what "origin ${action}" takes.`);
    return await act(input, names[0] ?? '');
  },
};

const ACTIONS: Readonly<Record<string, (input: Input, name: string) => Promise<number>>> = {
  invite: async (input, id) => {
    const url = textOf(input, 'at');
    if (url === undefined) throw new UsageError('Say where the edge reaches it: --at https://origin.example.com');
    const minutes = Number(textOf(input, 'minutes') ?? '60');
    if (!(minutes >= 1)) throw new UsageError('--minutes takes a number of minutes.');
    const admin = await adminOf(adminOptions(input));
    const body = { id, url, expiresInS: Math.round(minutes * 60) };
    const { code, expiresAt } = invited.parse(await admin.post('/origins/invitations', body));
    say(`Until ${expiresAt}, once, on the machine that becomes origin "${id}":\n`);
    say(`  moorage origin join <this edge's URL> --code ${code}`);
    return 0;
  },
  list: async (input) => {
    const answer = listed.parse(await (await adminOf(adminOptions(input))).get('/origins'));
    if (input.values.json) say(JSON.stringify(answer, null, 2));
    else {
      const rows = answer.origins.map(({ id, url = 'bound to the edge', servers, connected, lastSeen }) => {
        return [id, url, connected ? 'connected' : `away since ${lastSeen ?? 'ever'}`, servers.join(' ')];
      });
      const waiting = answer.invited.map(({ id, url, expiresAt }) => [id, url, `invited until ${expiresAt}`, '']);
      process.stdout.write(table(['ORIGIN', 'REACHED AT', 'LINK', 'SERVERS'], [...rows, ...waiting]));
    }
    return 0;
  },
  revoke: async (input, id) => {
    await (await adminOf(adminOptions(input))).delete(`/origins/${encodeURIComponent(id)}`);
    say(`Origin "${id}" is trusted no more.`);
    return 0;
  },
  join: async (input, edge) => {
    const url = URL.parse(edge);
    const isLocal = url !== null && ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
    if (!url || !(url.protocol === 'https:' || (url.protocol === 'http:' && isLocal))) {
      throw new UsageError('The edge is named by an address such as https://mcp.example.com.');
    }
    const code = textOf(input, 'code');
    if (code === undefined) throw new UsageError('--code CODE: ask the owner of the edge for "moorage origin invite".');
    const { id } = await enrol(stateDirOf(input), url, code);
    say(`This machine is origin "${id}" of ${url.origin}. Serve with "moorage origin run".`);
    return 0;
  },
  run,
  rotate: async (input) => {
    await rotate(stateDirOf(input));
    say('The key was changed. An agent that runs keeps its link, and uses the new key when it dials again.');
    return 0;
  },
  status: async (input) => {
    const { id, edgeUrl, edgeKeys } = loadEnrolled(stateDirOf(input));
    const told = { id, edgeUrl, edgeKeys: edgeKeys.map(({ x }) => x) };
    if (input.values.json) say(JSON.stringify(told, null, 2));
    else
      say(
        `Origin "${id}" of ${edgeUrl}, whose pinned ${edgeKeys.length === 1 ? 'key is' : 'keys are'} ${told.edgeKeys.join(' and ')}`,
      );
    return 0;
  },
};

async function run(input: Input): Promise<number> {
  const stopped = new Promise<void>((done) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => done());
  });
  const configDir = dirname(resolve(input.config));
  const stateDir = stateDirOf(input);
  const origin = await runOrigin(readConfig(input.config), { configDir, stateDir, fallback: 'process', log: say });
  try {
    say(`Origin "${origin.id}" serves ${origin.edgeUrl}; its tunnel leads to ${origin.address}`);
    await stopped;
    say('stopping');
    return 0;
  } finally {
    await origin.close();
  }
}

const adminOptions = (input: Input) => ({ config: input.config, state: input.state, url: textOf(input, 'url') });

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};
