/** New machines out of a template, on real guests: fresh in everything, with no boot, and a template that fits or goes. */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { Forks } from '../../origin/forks.ts';
import { defaultCacheDir } from '../../origin/images/cache.ts';
import type { Log } from '../../origin/log.ts';
import { Machines } from '../../origin/machines.ts';
import { placed } from '../../origin/places.ts';
import {
  isProcessDefinition,
  machineDefinitions,
  type ProcessDefinition,
  serverDefinitions,
} from '../../origin/server.ts';
import { Entrances } from '../../origin/shell/entrances.ts';
import { processStart } from '../../origin/vm/pid.ts';
import { QemuDriver } from '../../origin/vm/qemu.ts';
import { parseConfig } from '../../shared/config.ts';
import { machineKeyOf } from '../../shared/machine-key.ts';
import { until } from '../support/origin.ts';
import { Server } from './sleeper.ts';

const cacheDir = defaultCacheDir();
const driver = new QemuDriver({ cacheDir });
const sleepers = { carry: () => [], adopt: () => ({ kept: 0, ended: 0 }) };
const logged: string[] = [];
const note = (text: string) => void logged.push(text);
const log: Log = { debug: note, info: note, warn: note, error: note, server: note, machine: note };
let folder: string;
let machines: Machines;

/** The origin's machines, where every principal has one or all share it. */
function origin(isolation: 'principal' | 'server') {
  const entry = { command: 'node', args: ['scripted-server.mjs'], files: './scripted', isolation };
  const limits = { memory: '192M', disk: '128M' };
  const servers = serverDefinitions(parseConfig(JSON.stringify({ mcpServers: { each: { ...entry, limits } } })));
  const definitions = machineDefinitions(servers);
  const made = new Machines({
    definitions,
    driver,
    stateDir: join(folder, 'state'),
    cacheDir,
    configDir: folder,
    memoryMiB: 4096,
    log,
  });
  return { made, definition: servers[0] };
}

/** The server as a principal has it. */
async function ownOf(principal: string): Promise<ProcessDefinition> {
  const { definition } = origin('principal');
  if (!definition) throw new TypeError('There is one server.');
  const machine = await machineKeyOf('each', 'principal', { principal, session: 's' });
  const own = await placed(definition, { origin: 'o', principal, server: 'each', machine, session: 's' } as never);
  if (!isProcessDefinition(own)) throw new TypeError('It is a process.');
  return own;
}

/** The server's process in a principal's machine, which is made when it is not there. */
async function serverOf(principal: string): Promise<Server> {
  const own = await ownOf(principal);
  const lease = await machines.lease(own);
  return new Server(await machines.start(own, lease.machine, {}));
}

const templates = () => readdirSync(join(folder, 'state/templates'));
const booted = () => logged.filter((line) => line.includes('booting a template')).length;

beforeAll(async () => {
  if (!inject('guests')) return;
  folder = mkdtempSync(join(tmpdir(), 'moorage-template-'));
  mkdirSync(join(folder, 'scripted'));
  cpSync(new URL('../support/scripted-server.mjs', import.meta.url), join(folder, 'scripted/scripted-server.mjs'));
  machines = origin('principal').made;
  await machines.prepare();
  await machines.recall(sleepers);
});
afterAll(async () => {
  await machines?.close();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

describe.runIf(inject('guests'))('a principal’s new machine', () => {
  test('that is removed while its template boots takes that along: nothing of it runs', async () => {
    const own = await ownOf('zoe');
    const refused = machines.lease(own).catch((error: unknown) => error);
    const running = () => {
      const files = (existsSync(join(folder, 'state/templates')) ? templates() : []).map((name) =>
        join(folder, 'state/templates', name, 'qemu.pid'),
      );
      return files.filter((file) => existsSync(file)).map((file) => readFileSync(file, 'utf8'));
    };
    await until(() => running().length === 1);
    const { pid } = JSON.parse(running()[0] ?? '') as { pid: number };
    expect(processStart(pid)).toBeDefined();
    await machines.remove(own.machine);
    expect([processStart(pid), running()]).toEqual([undefined, []]);
    expect(await refused).toMatchObject({ code: 'machine_failed' });
    // It was not made to the end.
    expect(templates().filter((name) => existsSync(join(folder, 'state/templates', name, 'sleep/image.json')))).toEqual(
      [],
    );
    logged.length = 0;
  });

  test('is a copy of a template that is booted once, with an identity, numbers and a disk of its own', async () => {
    const began = performance.now();
    const ann = await serverOf('ann');
    expect(await ann.ask('count')).toBe('1');
    const first = performance.now();
    const bob = await serverOf('bob');
    expect(await bob.ask('count')).toBe('1');
    const second = performance.now();
    process.stdout.write(
      `to the first tool result: ${(first - began).toFixed(0)} ms with the template's boot, ${(second - first).toFixed(0)} ms from the template\n`,
    );
    expect([booted(), templates().length]).toEqual([1, 1]);
    const said = async (action: string, args: object = {}) => [
      await ann.ask(action, args),
      await bob.ask(action, args),
    ];
    const told = [
      ...(await said('read', { path: '/etc/machine-id' })),
      ...(await said('read', { path: '/proc/sys/kernel/hostname' })),
      ...(await said('draw')),
      ...(await said('random')),
    ];
    expect(new Set(told).size).toBe(8);
    const asked = Date.now();
    const times = (await said('now')).map(Number);
    expect(Math.min(...times)).toBeGreaterThan(asked - 1_000);
    expect(Math.max(...times)).toBeLessThan(Date.now() + 1_000);
    await ann.ask('record', { value: 'secret' });
    await expect(bob.ask('record', { value: 'mine' })).resolves.toBe('mine');
    expect(await bob.ask('read', { path: 'executions.log' })).not.toMatch(/secret/);
  });

  test('is copied like any other, for its principal alone', async () => {
    await (await serverOf('ann')).ask('record', { value: 'hers' });
    const { definition } = origin('principal');
    if (!definition) throw new TypeError('There is one server.');
    const servers = new Map([['each', definition]]);
    const forks = new Forks({
      servers,
      machines,
      entrances: new Entrances({ machines, servers }),
      folder: machines.folder,
      copied: () => ({ carry: [], keep: [], renewed: 0 }),
      announce: async () => [],
      log,
      now: Date.now,
    });
    await forks.create({ of: 'each', principal: 'ann', as: 'staging', keep: false });
    const staging = servers.get('staging');
    if (!staging || !isProcessDefinition(staging)) throw new TypeError('It is served.');
    const lease = await machines.lease(staging);
    const there = new Server(await machines.start(staging, lease.machine, {}));
    expect(await there.ask('read', { path: 'executions.log' })).toMatch(/^hers /m);
    expect(await there.ask('read', { path: '/proc/sys/kernel/hostname' })).toBe('staging');
    expect(machines.states()).toContainEqual(
      expect.objectContaining({
        key: 'staging',
        machine: 'each',
        owner: 'ann',
        forkOf: expect.stringMatching(/^each\.p-/),
      }),
    );
    const bob = { origin: 'o', principal: 'bob', server: 'staging', machine: 'staging', session: 's' };
    await expect(placed(staging, bob as never)).rejects.toMatchObject({ code: 'forbidden_server' });
    await forks.remove('staging');
    expect(existsSync(join(machines.folder, 'staging'))).toBe(false);
  });

  test('is made of a new template when the old one is of no use any more', async () => {
    const [name = ''] = templates();
    const sleep = join(folder, 'state/templates', name, 'sleep');
    truncateSync(join(sleep, readdirSync(sleep).find((file) => file.startsWith('devices')) ?? ''), 10);
    expect(await (await serverOf('cay')).ask('count')).toBe('1');
    expect(booted()).toBe(2);
  });

  test('has no template any more when its server is configured otherwise', async () => {
    await machines.close();
    expect(templates()).toHaveLength(1);
    await origin('server').made.recall(sleepers);
    expect(existsSync(join(folder, 'state/templates')) ? templates() : []).toEqual([]);
  });
});
