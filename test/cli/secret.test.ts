/** `moorage secret` as its user meets it: without a router, on the files; with one, through its socket. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { controlOf } from '../../cli/control.ts';
import { command } from '../../cli/secret.ts';
import { startControl } from '../../origin/control/control.ts';
import { secretRoutes } from '../../origin/control/secrets.ts';
import { openLog } from '../../origin/log.ts';
import { SecretStore } from '../../origin/secrets/store.ts';
import type { ServerDefinition } from '../../origin/server.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const VALUE = 'planted-secret-0123456789abcdef';
const state = mkdtempSync(join(tmpdir(), 'moorage-secret-'));
afterAll(() => rmSync(state, { recursive: true }));

async function secret(args: string[], input = ''): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, ['cli/moorage.ts', 'secret', ...args, '--state', state], { cwd: ROOT });
  child.stdin.end(input);
  const [out, err, code] = await Promise.all([
    child.stdout.toArray(),
    child.stderr.toArray(),
    new Promise<number | null>((resolve) => child.once('exit', resolve)),
  ]);
  return { code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() };
}

test('without a router it works on the state folder; a value comes from standard input and is shown nowhere', {
  timeout: 60_000,
}, async () => {
  const set = await secret(['set', 'TOKEN', '--server', 'github'], `${VALUE}\n`);
  expect(set).toEqual({ code: 0, out: 'TOKEN is set. Servers get it when they start the next time.\n', err: '' });
  expect(new SecretStore(state).find('TOKEN', 'github', undefined)?.value).toBe(VALUE);
  const list = await secret(['list', '--json']);
  expect(JSON.parse(list.out)).toEqual([{ name: 'TOKEN', server: 'github', changedAt: expect.any(Number) }]);
  for (const file of readdirSync(state)) expect(readFileSync(join(state, file)).includes(VALUE)).toBe(false);
  const nothing = await secret(['set', 'TOKEN'], '\n');
  expect([nothing.code, nothing.err]).toEqual([2, expect.stringMatching(/No value: give it on standard input/)]);
});

test.each([[['set']], [['set', 'TOKEN', VALUE]], [['list', 'TOKEN']], [['show', 'TOKEN']]])(
  '%j is wrong usage, and nothing of it is repeated',
  async (positionals) => {
    const error = await command
      .run({ positionals, values: {}, rest: [], config: 'unused', state })
      .catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ name: 'UsageError', message: expect.stringMatching(/moorage secret set NAME/) });
    expect(String(error)).not.toContain(VALUE);
  },
);

test('with a router it goes through its socket, which restarts what uses the secret', { timeout: 60_000 }, async () => {
  const store = new SecretStore(state);
  const asked: string[] = [];
  const definitions = ['github', 'other'].map(
    (name) =>
      ({
        name,
        machine: name,
        deployment: 'd',
        entry: { runtime: 'vm', secrets: [{ env: 'T', secret: 'TOKEN' }] },
      }) as unknown as ServerDefinition,
  );
  const restart = async (which: (definition: ServerDefinition) => boolean) => {
    asked.push(...definitions.filter(which).map(({ name }) => name));
    return 3;
  };
  const control = await startControl({
    socket: join(state, 'control.sock'),
    routes: { '/v1/secrets': secretRoutes({ store, restart }) },
    sockets: {},
    log: openLog(join(state, 'logs'), () => {}),
  });
  try {
    const set = await secret(['set', 'TOKEN', '--server', 'github', '--restart'], 'another value');
    expect(set.out).toMatch(/3 server processes with the old value were ended/);
    expect(asked).toEqual(['github']);
    expect(store.find('TOKEN', 'github', undefined)?.value).toBe('another value');
    const call = controlOf({ config: 'unused', state }).call;
    const place = { name: 'TOKEN', server: 'github' };
    await expect(call('GET', '/v1/secrets')).resolves.toEqual({
      secrets: [{ ...place, changedAt: expect.any(Number) }],
    });
    await expect(call('POST', '/v1/secrets/rotate')).resolves.toEqual({ sealed: 1 });
    await expect(call('POST', '/v1/secrets/remove', place)).resolves.toEqual({ removed: true });
    await expect(call('POST', '/v1/secrets/remove', { no: 1 })).rejects.toMatchObject({ code: 'invalid_params' });
    expect(await secret(['rm', 'TOKEN'])).toMatchObject({ code: 1, out: 'There is no such secret: TOKEN.\n' });
    const refused = await secret(['set', 'TOKEN'], 'short');
    expect([refused.code, refused.err]).toEqual([1, expect.stringMatching(/shorter than 8 characters/)]);
  } finally {
    await control.close();
    store.close();
  }
});
