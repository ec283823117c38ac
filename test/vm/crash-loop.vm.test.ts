/** A machine whose QEMU is killed again and again, soon after its boot: it is left alone for a while, and comes back. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { defaultCacheDir } from '../../origin/images/cache.ts';
import type { Log } from '../../origin/log.ts';
import { Machines } from '../../origin/machines.ts';
import { isProcessDefinition, machineDefinitions, serverDefinitions } from '../../origin/server.ts';
import { QemuDriver } from '../../origin/vm/qemu.ts';
import { parseConfig } from '../../shared/config.ts';
import { Server } from './sleeper.ts';

const cacheDir = defaultCacheDir();
const entry = { command: 'node', args: [new URL('../support/scripted-server.mjs', import.meta.url).pathname] };
const servers = serverDefinitions(
  parseConfig(JSON.stringify({ mcpServers: { notes: { ...entry, limits: { memory: '192M', disk: '128M' } } } })),
).filter(isProcessDefinition);
const logged: string[] = [];
const note = (text: string) => void logged.push(text);
const log: Log = { debug: note, info: note, warn: note, error: note, server: note, machine: note };
let folder: string;
let machines: Machines;

beforeAll(async () => {
  if (!inject('guests')) return;
  folder = mkdtempSync(join(tmpdir(), 'moorage-crashes-'));
  machines = new Machines({
    definitions: machineDefinitions(servers),
    driver: new QemuDriver({ cacheDir }),
    stateDir: folder,
    cacheDir,
    configDir: folder,
    log,
  });
  await machines.prepare();
});
afterAll(async () => {
  await machines?.close();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

describe.runIf(inject('guests'))('a machine that keeps ending by itself', () => {
  test('is refused after the sixth time, is shown with why, and boots when its pause is over', async () => {
    const [notes] = servers;
    if (!notes) throw new TypeError('There is one server.');
    for (let n = 0; n < 6; n += 1) {
      const { machine } = await machines.lease(notes);
      const { pid } = JSON.parse(readFileSync(join(folder, 'machines/notes/qemu.pid'), 'utf8')) as { pid: number };
      process.kill(pid, 'SIGKILL');
      await machine.gone;
    }
    const refused = await machines.lease(notes).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: 'machine_failed', data: { cause: 'crash_loop', crashes: 6 } });
    const { retryAfterMs } = (refused as { data: { retryAfterMs: number } }).data;
    expect(retryAfterMs).toBeLessThanOrEqual(1_000);
    expect(machines.states()).toMatchObject([
      { key: 'notes', state: 'failed', crashLoop: expect.stringMatching(/^6 crashes in a row.*SIGKILL/) },
    ]);
    expect(logged.join('\n')).toMatch(/machine notes is in a crash loop: 6 crashes/);
    await sleep(retryAfterMs);
    const lease = await machines.lease(notes);
    const server = new Server(await machines.start(notes, lease.machine, {}));
    expect(await server.ask('count')).toBe('1');
    lease.release(true);
    expect(machines.states()).toEqual([{ key: 'notes', state: 'running', machine: 'notes', isolation: 'server' }]);
  });
});
