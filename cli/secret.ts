/**
 * Owns `moorage secret`: values that servers need and the configuration only names. Through the router that runs here, else
 * directly in its state folder; both are the same file.
 */
import { z } from 'zod';
import { SecretStore } from '../origin/secrets/store.ts';
import { type Command, type Input, textOf } from './command.ts';
import { controlOf, stateDirOf } from './control.ts';
import { readValue } from './secret-value.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

const listed = z.object({
  secrets: z.array(
    z.object({
      name: z.string(),
      server: z.string().optional(),
      principal: z.string().optional(),
      changedAt: z.number(),
    }),
  ),
});

export const command: Command = {
  usage: `secret set NAME [--server SERVER] [--principal SUBJECT] [--restart]
       moorage secret rm NAME [--server SERVER] [--principal SUBJECT]
       moorage secret list [--json]
       moorage secret rotate

set stores a value, which is read from standard input or asked for, and never taken as an argument. Servers
that name it in "secrets" get it when they start the next time. rm removes it, list shows all without their
values, rotate seals them with a fresh key.

  --server SERVER      for this server alone (default: for every server that names it)
  --principal SUBJECT  for this principal's machines alone; wins over one for all
  --restart            end what runs with the old value now: calls in flight are lost
  --json               as JSON
`,
  options: {
    server: { type: 'string' },
    principal: { type: 'string' },
    restart: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
  run: async (input) => {
    const [what, name, ...more] = input.positionals;
    const takesName = what === 'set' || what === 'rm';
    if (more.length > 0 || takesName !== (name !== undefined)) throw wrong();
    switch (what) {
      case 'set':
        return await set(input, String(name));
      case 'rm':
        return await remove(input, String(name));
      case 'list':
        return await list(input);
      case 'rotate':
        return await rotate(input);
      default:
        throw wrong();
    }
  },
};

const wrong = (): UsageError =>
  new UsageError('Say "moorage secret set NAME", "rm NAME", "list" or "rotate": see "moorage help secret".');

const placeOf = (input: Input, name: string) => ({
  name,
  server: textOf(input, 'server'),
  principal: textOf(input, 'principal'),
});

async function set(input: Input, name: string): Promise<number> {
  const place = placeOf(input, name);
  const value = await readValue(`Value of ${name} (not shown): `);
  const isRunning = await change(
    input,
    (control) => control.call('PUT', '/v1/secrets', { ...place, value }),
    (store) => store.set(place, value),
  );
  if (!isRunning || input.values.restart !== true) {
    say(`${name} is set. Servers get it when they start the next time${isRunning ? '; --restart does it now' : ''}.`);
    return 0;
  }
  const { ended } = z
    .object({ ended: z.number() })
    .parse(await controlOf(input).call('POST', '/v1/secrets/restart', place));
  say(`${name} is set. ${ended} server processes with the old value were ended; they start anew when they are used.`);
  return 0;
}

async function remove(input: Input, name: string): Promise<number> {
  const place = placeOf(input, name);
  let removed = false;
  await change(
    input,
    async (control) => {
      removed = z
        .object({ removed: z.boolean() })
        .parse(await control.call('POST', '/v1/secrets/remove', place)).removed;
    },
    (store) => {
      removed = store.remove(place);
    },
  );
  say(removed ? `${name} is removed. Servers that run keep what they got.` : `There is no such secret: ${name}.`);
  return removed ? 0 : 1;
}

async function list(input: Input): Promise<number> {
  let { secrets }: z.infer<typeof listed> = { secrets: [] };
  await change(
    input,
    async (control) => {
      secrets = listed.parse(await control.call('GET', '/v1/secrets')).secrets;
    },
    (store) => {
      secrets = store.list();
    },
  );
  process.stdout.write(
    input.values.json
      ? `${JSON.stringify(secrets, null, 2)}\n`
      : table(
          ['SECRET', 'SERVER', 'PRINCIPAL', 'CHANGED'],
          secrets.map(({ name, server = '(all)', principal = '(all)', changedAt }) => [
            name,
            server,
            principal,
            new Date(changedAt).toISOString(),
          ]),
        ),
  );
  return 0;
}

async function rotate(input: Input): Promise<number> {
  let sealed = 0;
  await change(
    input,
    async (control) => {
      sealed = z.object({ sealed: z.number() }).parse(await control.call('POST', '/v1/secrets/rotate')).sealed;
    },
    (store) => {
      sealed = store.rotate();
    },
  );
  say(`${sealed} secrets are sealed with a fresh key.`);
  return 0;
}

/** Asks the router that runs here, which may hold a key that this process cannot read; else acts itself. */
async function change(
  input: Input,
  ask: (control: ReturnType<typeof controlOf>) => Promise<unknown>,
  act: (store: SecretStore) => void,
): Promise<boolean> {
  try {
    await ask(controlOf(input));
    return true;
  } catch (error) {
    // What is thrown when no router runs; anything else it answered.
    if (!(error instanceof UsageError)) throw error;
  }
  const store = new SecretStore(stateDirOf(input));
  try {
    act(store);
  } finally {
    store.close();
  }
  return false;
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};
