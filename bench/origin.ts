/**
 * An origin's machines with the benchmark's server in them: the real driver, supervisor and images over a folder that goes
 * when it is closed. Only the edge, the agent's HTTP interface and its sessions are left out.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultCacheDir } from '../origin/images/cache.ts';
import type { Log } from '../origin/log.ts';
import { Machines } from '../origin/machines.ts';
import { placedAt } from '../origin/places.ts';
import {
  isProcessDefinition,
  machineDefinitions,
  type ProcessDefinition,
  serverDefinitions,
} from '../origin/server.ts';
import type { ServerProcess } from '../origin/vm/driver.ts';
import { QemuDriver } from '../origin/vm/qemu.ts';
import { parseConfig } from '../shared/config.ts';
import { GUEST_MIB } from './options.ts';
import { Server } from './server.ts';

/** Stays paused; falls asleep on disk; has a machine for each principal. */
export const SERVERS = ['paused', 'asleep', 'spare', 'each'] as const;
const ENTRY = { command: 'node', args: ['server.mjs'], files: './guest' };
const LIMITS = { memory: `${GUEST_MIB}M`, disk: '256M' };
/** A machine falls asleep so soon after its last use, in milliseconds. */
const SOON = 30;
const SLEEP_WITHIN_MS = 60_000;

export class BenchOrigin {
  readonly stateDir: string;
  readonly driver: QemuDriver;
  readonly machines: Machines;
  /** Processes that went on in copies, by machine. */
  readonly #servers: ReadonlyMap<string, ProcessDefinition>;
  #adopted: ReadonlyMap<number, ServerProcess> = new Map();

  constructor(log: Log, stateDir = mkdtempSync(join(tmpdir(), 'moorage-bench-'))) {
    this.stateDir = stateDir;
    const cacheDir = defaultCacheDir();
    const limited = (name: string) => ({
      ...ENTRY,
      limits: LIMITS,
      ...(name === 'each' ? { isolation: 'principal' } : {}),
    });
    const mcpServers = Object.fromEntries(SERVERS.map((name) => [name, limited(name)]));
    const servers = serverDefinitions(parseConfig(JSON.stringify({ mcpServers }))).filter(isProcessDefinition);
    this.#servers = new Map(servers.map((server) => [server.name, server]));
    this.driver = new QemuDriver({ cacheDir });
    this.machines = new Machines({
      // No configuration is this impatient.
      definitions: machineDefinitions(servers).map((definition) => ({
        ...definition,
        sleep: {
          pauseAfterMs: SOON,
          hibernateAfterMs: definition.key === 'paused' ? Number.POSITIVE_INFINITY : SOON,
          stopAfterMs: Number.POSITIVE_INFINITY,
        },
      })),
      driver: this.driver,
      stateDir,
      cacheDir,
      configDir: import.meta.dirname,
      log,
    });
  }

  /** Builds what machines are made of, and finds those that sleep. */
  async open(): Promise<void> {
    await this.machines.prepare();
    await this.machines.recall({
      carry: () => [],
      adopt: ({ machine }) => {
        this.#adopted = machine.processes?.() ?? new Map();
        return { kept: this.#adopted.size, ended: 0 };
      },
    });
  }

  server(name: (typeof SERVERS)[number]): ProcessDefinition {
    const found = this.#servers.get(name);
    if (!found) throw new TypeError(`There is no server "${name}".`);
    return found;
  }

  /** The server of one principal, in a machine of its own. */
  ofPrincipal(principal: string): ProcessDefinition {
    const home = this.server('each');
    const key = keyOfPrincipal(principal);
    return placedAt(home, { key, own: { isolation: 'principal', home: home.machine, principal } }) as ProcessDefinition;
  }

  /** The server in a copy of the machine. */
  forkOf(parent: ProcessDefinition, name: string): ProcessDefinition {
    return { ...parent, name, machine: name, fork: { of: parent.name, server: parent.name, home: parent.machine } };
  }

  /** The process that went on in the copy that was made last. */
  adopted(): Server {
    const [process] = this.#adopted.values();
    if (!process) throw new Error('No process went on in the copy.');
    return new Server(process);
  }

  dir({ machine }: ProcessDefinition): string {
    return join(this.machines.folder, machine);
  }

  /** Process id of the machine's QEMU, where it has one. */
  pid(definition: ProcessDefinition): number | undefined {
    const file = join(this.dir(definition), 'qemu.pid');
    return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { pid: number }).pid : undefined;
  }

  /** Resolves when the machine has fallen asleep. */
  async until(definition: ProcessDefinition, state: 'paused' | 'hibernated'): Promise<void> {
    const deadline = performance.now() + SLEEP_WITHIN_MS;
    const now = () => this.machines.states().find(({ key }) => key === definition.machine)?.state;
    while (now() !== state) {
      if (performance.now() > deadline) throw new Error(`"${definition.machine}" is ${now()} and not ${state}.`);
      await sleep(5);
    }
  }

  /** Ends every machine and removes the folder. */
  async close(): Promise<void> {
    await Promise.all(this.machines.states().map(({ key }) => this.machines.remove(key)));
    this.discard();
  }

  /** The same without asking anybody. */
  discard(): void {
    for (const name of foldersIn(this.machines.folder)) end(join(this.machines.folder, name, 'qemu.pid'));
    for (const name of foldersIn(join(this.stateDir, 'templates')))
      end(join(this.stateDir, 'templates', name, 'qemu.pid'));
    rmSync(this.stateDir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** As `shared/machine-key.ts` makes it, with a name in the place of its digest. */
export const keyOfPrincipal = (principal: string): string => `each.p-${principal}`;

function foldersIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** Ends the QEMU of a machine that is still there: its working folder is the machine's. */
function end(pidFile: string): void {
  try {
    const { pid } = JSON.parse(readFileSync(pidFile, 'utf8')) as { pid: number };
    if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('qemu-system-') && existsSync(dirname(pidFile))) {
      process.kill(pid, 'SIGKILL');
    }
  } catch {
    // It has none.
  }
}
