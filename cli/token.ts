/** Owns `moorage token`: bearer tokens of the edge are made, listed and revoked; the owner's public key is told. */
import { mkdirSync } from 'node:fs';
import { loadOwnerKey, publicHalf } from '../router/state.ts';
import { MCP_SCOPE, serverScope } from '../shared/scopes.ts';
import { createdToken, type ListedToken, listedToken, listedTokens, type NewToken } from '../shared/tokens.ts';
import { type AdminClient, adminOf } from './admin.ts';
import { type Command, type Input, textOf, textsOf } from './command.ts';
import { stateDirOf } from './control.ts';
import { durationOf } from './duration.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

const DEFAULT_EXPIRY = '90d';

export const command: Command = {
  usage: `token create --name NAME [options] | list | revoke NAME|ID | owner

Makes, lists and revokes bearer tokens of the router that runs here, or of one elsewhere. A new token is shown once. The
router must take tokens: "auth": { "tokens": true }. "owner" prints the owner's public key: an edge elsewhere that is told it
(MOORAGE_OWNER_KEY) is administered from here.

  --name NAME       what it is listed by
  --server NAME     it is good for this server; may be repeated
  --scope SCOPE     it has this scope ("mcp": every server, "admin": administration); may be repeated.
                    Without --server and --scope: "mcp"
  --group GROUP     its holder is in this group; may be repeated
  --subject NAME    who its holder is (default: its name): tokens of one subject share their sessions
  --expires TIME    it ends after 45m, 12h or 30d, or "never" (default: ${DEFAULT_EXPIRY})
  --url URL         the router is there; a token with the scope "admin" is read from MOORAGE_TOKEN
  --json            for programs
`,
  options: {
    name: { type: 'string' },
    server: { type: 'string', multiple: true },
    scope: { type: 'string', multiple: true },
    group: { type: 'string', multiple: true },
    subject: { type: 'string' },
    expires: { type: 'string' },
    url: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const [action, ...rest] = input.positionals;
    const [which] = rest;
    if (action === 'create' && rest.length === 0) return await create(await clientOf(input), input);
    if (action === 'list' && rest.length === 0) return await list(await clientOf(input), input);
    if (action === 'revoke' && which !== undefined && rest.length === 1) {
      return await revoke(await clientOf(input), which);
    }
    if (action === 'owner' && rest.length === 0) {
      const dir = stateDirOf(input);
      mkdirSync(dir, { recursive: true, mode: 0o700 });
      process.stdout.write(`${JSON.stringify(publicHalf(await loadOwnerKey(dir)))}\n`);
      return 0;
    }
    throw new UsageError('Say "moorage token create --name NAME", "list" or "revoke NAME". See "moorage help token".');
  },
};

const clientOf = (input: Input): Promise<AdminClient> => {
  if (input.positionals[0] === 'create' && textOf(input, 'name') === undefined) {
    throw new UsageError('Name the token: "moorage token create --name NAME".');
  }
  return adminOf({ config: input.config, state: input.state, url: textOf(input, 'url') });
};

async function create(client: AdminClient, input: Input): Promise<number> {
  const name = textOf(input, 'name') ?? '';
  const scopes = [...textsOf(input, 'scope'), ...textsOf(input, 'server').map(serverScope)];
  const wish: NewToken = {
    name,
    subject: textOf(input, 'subject') ?? name,
    scopes: scopes.length > 0 ? scopes : [MCP_SCOPE],
    groups: [...textsOf(input, 'group')],
    expiresAt: expiry(textOf(input, 'expires') ?? DEFAULT_EXPIRY, Date.now()),
  };
  const { id, token } = createdToken.parse(await client.post('/tokens', wish));
  if (input.values.json) process.stdout.write(`${JSON.stringify({ id, token, ...wish }, null, 2)}\n`);
  else {
    process.stderr.write(`Token "${name}" (${id}). It is shown this once; only its digest is kept:\n`);
    process.stdout.write(`${token}\n`);
  }
  return 0;
}

async function list(client: AdminClient, input: Input): Promise<number> {
  const { tokens } = listedTokens.parse(await client.get('/tokens'));
  process.stdout.write(
    input.values.json
      ? `${JSON.stringify(tokens, null, 2)}\n`
      : table(
          ['NAME', 'ID', 'SCOPES', 'STATE', 'EXPIRES', 'LAST USED'],
          tokens.map((token) => [
            token.name,
            token.id,
            token.scopes.join(' '),
            stateOf(token, Date.now()),
            day(token.expiresAt, 'never'),
            day(token.usedAt, 'never'),
          ]),
        ),
  );
  return 0;
}

async function revoke(client: AdminClient, which: string): Promise<number> {
  const { name, id } = listedToken.parse(await client.delete(`/tokens/${encodeURIComponent(which)}`));
  process.stdout.write(`Token "${name}" (${id}) is revoked. Streams that it opened end within two seconds.\n`);
  return 0;
}

/** When a token made now ends, in milliseconds; null: never. */
export function expiry(text: string, now: number): number | null {
  if (text === 'never') return null;
  const lifetime = durationOf(text);
  if (lifetime === undefined) throw new UsageError('--expires takes a time such as "12h" or "30d", or "never".');
  return now + lifetime;
}

function stateOf({ revokedAt, expiresAt }: ListedToken, now: number): string {
  if (revokedAt !== null) return 'revoked';
  return expiresAt !== null && expiresAt <= now ? 'expired' : 'good';
}

const day = (at: number | null, none: string): string => (at === null ? none : new Date(at).toISOString().slice(0, 10));
