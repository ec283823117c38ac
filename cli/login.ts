/** Owns `moorage login`: one-time codes for the built-in authorization server, and the logins that clients have. */
import { z } from 'zod';
import { type AdminClient, adminOf } from './admin.ts';
import { type Command, type Input, textOf, textsOf } from './command.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

const made = z.object({ code: z.string(), expiresAt: z.string() });
const listed = z.object({
  logins: z.array(
    z.object({
      id: z.string(),
      subject: z.string(),
      name: z.string(),
      client: z.string(),
      since: z.string(),
      scopes: z.array(z.string()),
    }),
  ),
});

export const command: Command = {
  usage: `login code [--as NAME] [--group GROUP] | list [--json] | revoke ID

MCP clients log their user in with a browser, where "auth" has "oauth". The page asks for a one-time code.

  code          print one, good once, for ten minutes
  list          the logins that clients have
  revoke ID     end one: its tokens are worth nothing, its streams end

  --as NAME     who logs in with the code (default: owner)
  --group NAME  a group of theirs; may be repeated
  --url URL     the router is there; a token with the scope "admin" is read from MOORAGE_TOKEN
`,
  options: {
    as: { type: 'string' },
    group: { type: 'string', multiple: true },
    url: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const [action, id, ...more] = input.positionals;
    const isRevoke = action === 'revoke' && id !== undefined && more.length === 0;
    if (!isRevoke && !(['code', 'list'].includes(action ?? '') && id === undefined)) {
      throw new UsageError('Say "moorage login code", "list" or "revoke ID". See "moorage help login".');
    }
    const admin = await adminOf({ config: input.config, state: input.state, url: textOf(input, 'url') });
    if (action === 'code') return await code(admin, input);
    if (action === 'list') return await list(admin, input);
    await admin.delete(`/logins/${encodeURIComponent(id ?? '')}`);
    process.stdout.write(`The login is ended: its tokens are worth nothing, its streams end within two seconds.\n`);
    return 0;
  },
};

async function code(admin: AdminClient, input: Input): Promise<number> {
  const name = textOf(input, 'as');
  const body = { ...(name === undefined ? {} : { name }), groups: textsOf(input, 'group') };
  const answer = made.parse(await admin.post('/logins/codes', body));
  process.stdout.write(
    input.values.json
      ? `${JSON.stringify(answer)}\n`
      : `${answer.code}\nType it into the page that your client has opened. It is good once, until ${answer.expiresAt}.\n`,
  );
  return 0;
}

async function list(admin: AdminClient, input: Input): Promise<number> {
  const { logins } = listed.parse(await admin.get('/logins'));
  const rows = logins.map(({ id, name, client, since, scopes }) => [id, name, client, since, scopes.join(' ')]);
  process.stdout.write(
    input.values.json
      ? `${JSON.stringify(logins, null, 2)}\n`
      : table(['ID', 'WHO', 'CLIENT', 'SINCE', 'SCOPES'], rows),
  );
  return 0;
}
