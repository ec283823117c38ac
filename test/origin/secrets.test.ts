/** Secrets on their way: to the process that needs them, in headers to a server over HTTP, and out of all that these print. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Carried } from '../../origin/bridge/upstreams.ts';
import { Upstreams } from '../../origin/bridge/upstreams.ts';
import { Secrets } from '../../origin/secrets/secrets.ts';
import { SecretStore } from '../../origin/secrets/store.ts';
import { initialize, type OriginUnderTest, request, startOrigin, textOf, until } from '../support/origin.ts';

const VALUE = 'planted-secret-0123456789abcdef';
const script = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), 'moorage-secret-'));
const store = new SecretStore(dir, { credentials: undefined });
const digest = (value: string) => createHash('sha256').update(value).digest('hex');
let origin: OriginUnderTest;
let seenHeader: string | undefined;

const web = createServer(async (incoming, outgoing) => {
  seenHeader = incoming.headers.authorization;
  if (incoming.method !== 'POST') return outgoing.writeHead(405).end();
  const message = JSON.parse(Buffer.concat(await incoming.toArray()).toString()) as { id?: number; method: string };
  if (message.id === undefined) return outgoing.writeHead(202).end();
  const result =
    message.method === 'initialize'
      ? { protocolVersion: '2025-11-25', capabilities: {}, serverInfo: { name: 'w', version: '1' } }
      : { content: [{ type: 'text', text: `you sent ${seenHeader}` }] };
  outgoing.setHeader('content-type', 'application/json');
  return outgoing.end(JSON.stringify({ jsonrpc: '2.0', id: message.id, result }));
});

beforeAll(async () => {
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/mcp`;
  const server = { runtime: 'process', command: process.execPath, args: [script] };
  origin = await startOrigin(
    {
      github: { ...server, secrets: ['TOKEN', { env: 'ALIAS', secret: 'TOKEN' }] },
      each: { ...server, runtime: 'vm', isolation: 'principal', secrets: ['TOKEN'] },
      lost: { ...server, secrets: ['NEVER_SET'] },
      web: { url, headers: { Authorization: `Bearer \${secret:TOKEN}` } },
    },
    store,
  );
  store.set({ name: 'TOKEN' }, VALUE);
});
afterAll(async () => {
  await origin.close();
  web.close();
  store.close();
  rmSync(dir, { recursive: true });
});

let sessions = 0;
async function open(server: string, principal = 'p') {
  const at = { session: `s${++sessions}`, server, principal };
  await origin.ask(initialize(), at);
  const run = async (action: string, args: object = {}) =>
    textOf(await origin.ask(request(1, 'tools/call', { name: 'do', arguments: { action, ...args } }), at));
  return { run, at };
}
const variable = (as: string, name = 'TOKEN') => ['variable', { name, as }] as const;

test('a process gets it under every name that its entry gives it', async () => {
  const { run } = await open('github');
  expect(await run(...variable('digest'))).toBe(digest(VALUE));
  expect(await run(...variable('digest', 'ALIAS'))).toBe(digest(VALUE));
});

test('a tool’s result does not tell it, plain or encoded, nor does the log', async () => {
  const { run } = await open('github');
  expect(await run(...variable('text'))).toBe('[secret TOKEN]');
  expect(await run(...variable('base64'))).toMatch(/^.{6,7}\[secret TOKEN\].?=*$/);
  origin.logged.length = 0;
  expect(await run('leak', { name: 'TOKEN' })).toBe('leaked');
  await until(() => origin.logged.filter((line) => line.includes('token=')).length === 2);
  expect(origin.logged.join('\n')).toMatch(/\[github\] token=\[secret TOKEN\] end/);
  expect(origin.logged.join('\n')).toMatch(/not a JSON-RPC message\) token=\[secret TOKEN\] end/);
  expect(origin.logged.join('\n')).not.toContain(VALUE);
});

test('a header is complete on its way to the server, and an echo of it is not', async () => {
  const { run } = await open('web');
  expect(await run('anything')).toBe('you sent Bearer [secret TOKEN]');
  expect(seenHeader).toBe(`Bearer ${VALUE}`);
});

test('one that is not set is an error that names the command', async () => {
  const at = { session: 'lost', server: 'lost' };
  const refused = await origin.ask(initialize(), at).catch((error: unknown) => error);
  expect(JSON.stringify(refused)).toContain('"code":"secret_missing"');
  expect(JSON.stringify(refused)).toContain('moorage secret set NEVER_SET');
  const secrets = new Secrets(store);
  expect(secrets.problems([...origin.definitions.values()])).toEqual([
    'The server "lost" needs the secret NEVER_SET, which is not set. Its owner sets it with: moorage secret set NEVER_SET',
  ]);
});

test('a principal with a machine of its own gets its own, others that for all', async () => {
  store.set({ name: 'TOKEN', principal: 'ann' }, 'the token of ann');
  const [ann, bob] = [await open('each', 'ann'), await open('each', 'bob')];
  expect(await ann.run(...variable('digest'))).toBe(digest('the token of ann'));
  expect(await bob.run(...variable('digest'))).toBe(digest(VALUE));
  store.remove({ name: 'TOKEN', principal: 'ann' });
});

test('what runs keeps the old value until it is restarted; the next one gets the new value', async () => {
  const { run, at } = await open('github');
  store.set({ name: 'TOKEN', server: 'github' }, 'another token');
  expect(await run(...variable('digest'))).toBe(digest(VALUE));
  expect(await run(...variable('text'))).toBe('[secret TOKEN]');
  const ended = await origin.parts.restart(({ name }) => name === 'github');
  expect(ended).toBeGreaterThan(0);
  await expect(origin.ask(request(2, 'ping'), at)).rejects.toMatchObject({ error: { code: 'session_unknown' } });
  const next = await open('github');
  expect(await next.run(...variable('digest'))).toBe(digest('another token'));
  expect(await next.run(...variable('text'))).toBe('[secret TOKEN]');
  store.remove({ name: 'TOKEN', server: 'github' });
});

describe('a process that sleeps', () => {
  test('is taken over while its secrets are the same, and their values are nowhere in what is kept', async () => {
    const definition = origin.definitions.get('github');
    const secrets = new Secrets(store);
    const host = { lease: () => Promise.reject(new Error('not asked')) };
    const upstreams = new Upstreams({ host: host as never, secrets, log: {} as never });
    if (!definition) throw new Error('not there');
    const carried: Carried = {
      server: 'github',
      deployment: definition.deployment,
      stream: 1,
      secrets: secrets.given(definition).revision,
      peer: {},
    };
    expect(JSON.stringify(carried)).not.toContain(VALUE);
    expect(upstreams.isCurrent(carried, definition)).toBe(true);
    store.set({ name: 'TOKEN' }, VALUE);
    expect(upstreams.isCurrent(carried, definition)).toBe(false);
    expect(upstreams.isCurrent({ ...carried, secrets: '' }, definition)).toBe(false);
  });
});
