/** What a fork is made of, how it is found again, and whom it serves; machines themselves are folders here. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { copiedPeers } from '../../origin/bridge/copied.ts';
import type { Carried } from '../../origin/bridge/upstreams.ts';
import { Forks } from '../../origin/forks.ts';
import type { Log } from '../../origin/log.ts';
import type { MachineListing, Machines } from '../../origin/machines.ts';
import { homeOf, placed } from '../../origin/places.ts';
import { Secrets } from '../../origin/secrets/secrets.ts';
import { SecretStore } from '../../origin/secrets/store.ts';
import { discoveryOf, type Own, type ServerDefinition, serverDefinitions } from '../../origin/server.ts';
import { Entrances } from '../../origin/shell/entrances.ts';
import { parseConfig } from '../../shared/config.ts';
import type { Grant } from '../../shared/grant.ts';

const COST = { pausedMs: 1, silentMs: 1, memoryBytes: 1, disk: 'shared' } as const;
const ANN: Own = { isolation: 'principal', home: 'each', principal: 'ann' };
const configured = serverDefinitions(
  parseConfig(
    JSON.stringify({
      mcpServers: {
        notes: { command: 'notes', secrets: ['TOKEN'] },
        each: { command: 'each', isolation: 'principal', secrets: ['TOKEN'] },
        once: { command: 'once', isolation: 'session' },
        left: { command: 'l', isolation: 'principal', machine: 'pair' },
        right: { command: 'r', isolation: 'principal', machine: 'pair' },
        plain: { command: 'plain', runtime: 'process' },
        web: { url: 'http://127.0.0.1:1/mcp' },
      },
    }),
  ),
);
const own = new Map<string, Own>([
  ['each.p-ann', ANN],
  ['once.s-1', { isolation: 'session', home: 'once', principal: 'ann' }],
  ['once.s-2', { isolation: 'session', home: 'once', principal: 'ann' }],
  ['pair.p-ann', { isolation: 'principal', home: 'pair', principal: 'ann' }],
]);
const warnings: string[] = [];
const quiet = () => undefined;
const log: Log = {
  debug: quiet,
  info: quiet,
  warn: (text) => void warnings.push(text),
  error: quiet,
  server: quiet,
  machine: quiet,
};

let folder: string;
let servers: Map<string, ServerDefinition>;
let copies: string[];

/** An agent's forks after a start: what is on the disk is all that it knows. */
function started(without: readonly string[] = []): Forks {
  servers = new Map(configured.filter(({ name }) => !without.includes(name)).map((server) => [server.name, server]));
  const known = new Map<string, Partial<MachineListing>>(configured.map(({ machine }) => [machine, {}]));
  for (const [key, { isolation, home, principal }] of own)
    known.set(key, { machine: home, isolation, owner: principal });
  const machines: Partial<Machines> = {
    runtimeOf: (name) => (name === 'plain' ? 'process' : 'vm'),
    isKnown: (key) => known.has(key),
    ownOf: (key) => own.get(key),
    states: () =>
      [...known].map(([key, one]) => ({ key, state: 'running', machine: key, isolation: 'server', ...one })),
    fork: async (from, to, { files, copied }) => {
      copied();
      copies.push(`${from.name} in ${from.machine} -> ${to.name} in ${to.machine} like ${homeOf(to)}`);
      mkdirSync(join(folder, to.machine));
      for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, to.machine, name), text);
      return COST;
    },
    defineFork: ({ machine }) => void known.set(machine, {}),
    recallFork: async ({ machine }) => void known.set(machine, {}),
    remove: async (key) => {
      known.delete(key);
      rmSync(join(folder, key), { recursive: true });
    },
  };
  return new Forks({
    servers,
    // What forks ask of machines, and no more.
    machines: machines as Machines,
    entrances: new Entrances({ machines: machines as Machines, servers }),
    folder,
    copied: () => ({ carry: [], keep: [3], renewed: 1 }),
    announce: async () => [],
    log,
    now: () => 0,
  });
}

const create = (forks: Forks, of: string, as: string, principal?: string) =>
  forks.create({ of, as, keep: false, ...(principal === undefined ? {} : { principal }) });
const fork = (name: string) => servers.get(name)?.fork;
const grantOf = (name: string, principal: string): Grant =>
  // Who is placed by it reads no more.
  ({ server: name, machine: servers.get(name)?.machine ?? '', principal, session: 's' }) as Grant;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'moorage-forks-'));
  copies = [];
  warnings.length = 0;
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('a fork of a fork is a server like the first, and outlives what it was made of', async () => {
  const forks = started();
  await create(forks, 'notes', 'staging');
  await create(forks, 'staging', 'canary');
  expect(copies).toEqual([
    'notes in notes -> staging in staging like notes',
    'staging in staging -> canary in canary like notes',
  ]);
  expect(forks.list()).toMatchObject([
    { server: 'staging', of: 'notes' },
    { server: 'canary', of: 'staging', like: 'notes' },
  ]);
  const deployments = ['notes', 'staging', 'canary'].map((name) => servers.get(name)?.deployment);
  expect(new Set(deployments).size).toBe(3);
  await forks.remove('staging');
  expect([...started().list()].map(({ server }) => server)).toEqual(['canary']);
  expect([fork('canary'), servers.get('canary')?.deployment]).toEqual([
    { of: 'staging', server: 'notes', home: 'notes' },
    deployments[2],
  ]);
});

test('a fork whose server is not configured any more is kept, and says so', async () => {
  const forks = started();
  await create(forks, 'notes', 'staging');
  await create(forks, 'staging', 'canary');
  expect(started(['notes']).list()).toHaveLength(2);
  expect([servers.has('staging'), servers.has('canary')]).toEqual([false, false]);
  expect(warnings).toEqual([
    'fork "canary" of "staging" is not served: there is no server "notes"',
    'fork "staging" of "notes" is not served: there is no server "notes"',
  ]);
});

test.each([
  ['by the machine’s key', 'each.p-ann', undefined],
  ['by server and principal', 'each', 'ann'],
])(
  'a copy of one principal’s machine, named %s, serves that one alone, also after a restart',
  async (_how, of, principal) => {
    expect(await create(started(), of, 'staging', principal)).toMatchObject({ of: 'each.p-ann', principal: 'ann' });
    expect(copies).toEqual(['each in each.p-ann -> staging in staging like each']);
    started();
    const staging = servers.get('staging');
    if (!staging) throw new TypeError('It is served.');
    expect((await placed(staging, grantOf('staging', 'ann'))).machine).toBe('staging');
    await expect(placed(staging, grantOf('staging', 'bob'))).rejects.toMatchObject({ code: 'forbidden_server' });
    expect(discoveryOf(staging).copies).toBe('principal');
    // And so does a copy of that copy. Who comes by SSH is not the owner.
    await create(started(), 'staging', 'canary');
    expect(fork('canary')?.principal).toBe('ann');
    const machines: Partial<Machines> = { runtimeOf: () => 'vm', ownOf: () => undefined };
    const entrances = new Entrances({ machines: machines as Machines, servers });
    expect(['notes', 'staging', 'canary'].map((name) => entrances.has(name))).toEqual([true, false, false]);
  },
);

test('of servers that share a machine the one that is named is served', async () => {
  await create(started(), 'right', 'staging', 'ann');
  expect([copies, fork('staging')?.server]).toEqual([['right in pair.p-ann -> staging in staging like pair'], 'right']);
});

test.each([
  ['nobody', undefined, 'unknown_server', /No machine here has a server "nobody"/],
  ['plain', undefined, 'no_machine', /plain process/],
  ['web', undefined, 'no_machine', /its own address/],
  [
    'each',
    undefined,
    'no_machine',
    /each principal has one of its own. Name one of those that "moorage machines" lists/,
  ],
  ['each', 'bob', 'no_machine', /"bob" has no machine of "each"/],
  ['notes', 'ann', 'no_machine', /"ann" has no machine of "notes"/],
  ['once', 'ann', 'no_machine', /several machines of "once". Name one of them: once.s-1, once.s-2/],
])('%s (of %s) cannot be copied, and why is said', async (of, principal, code, message) => {
  await expect(create(started(), of, 'staging', principal)).rejects.toMatchObject({ code, message });
  expect(copies).toEqual([]);
});

test('a fork’s own secrets come first, then those of what it was made of; the original keeps its own', async () => {
  const forks = started();
  await create(forks, 'notes', 'staging');
  await create(forks, 'staging', 'canary');
  await create(forks, 'each', 'hers', 'ann');
  const store = new SecretStore(folder, { credentials: undefined });
  const secrets = new Secrets(store);
  const given = (name: string) => {
    const definition = servers.get(name);
    return definition && secrets.given(definition).env.TOKEN;
  };
  store.set({ name: 'TOKEN' }, 'one for all of them');
  store.set({ name: 'TOKEN', server: 'notes' }, 'one for notes');
  store.set({ name: 'TOKEN', principal: 'ann' }, 'one for ann');
  expect(['notes', 'staging', 'canary', 'hers'].map(given)).toEqual([
    'one for notes',
    'one for notes',
    'one for notes',
    'one for ann',
  ]);
  store.set({ name: 'TOKEN', server: 'staging' }, 'one for staging');
  expect(['notes', 'staging', 'canary'].map(given)).toEqual(['one for notes', 'one for staging', 'one for notes']);
  store.close();
});

test('of the processes that sessions share those go on that have the secrets of the copy; the others are counted', async () => {
  const forks = started();
  expect(await forks.create({ of: 'notes', as: 'staging', keep: true })).toMatchObject({
    processes: { kept: 1, renewed: 1 },
  });
  const [notes, staging] = [servers.get('notes'), servers.get('staging')];
  if (!notes || !staging) throw new TypeError('Both are served.');
  const peer = { of: 'lanes', key: '["notes","notes","x"]' };
  const carried = ['same', 'other'].map((secrets, stream): Carried => {
    return { server: 'notes', deployment: notes.deployment, stream, secrets, peer };
  });
  const { carry, keep, renewed } = copiedPeers(carried, notes, staging, ({ secrets }) => secrets === 'same');
  expect([keep, renewed]).toEqual([[0], 1]);
  expect(carry).toMatchObject([
    { server: 'staging', deployment: staging.deployment, peer: { key: '["staging","staging","x"]' } },
  ]);
});
