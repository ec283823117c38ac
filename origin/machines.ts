/**
 * Owns what stands between a server's entry in the configuration and its process: the machine's image, its boot, and the
 * command inside. The runtime is decided here, once: `vm`, or `process` where the configuration or the host says so.
 *
 * Invariant: an image is built at most once per machine at a time, and before the machine boots.
 */
import { join, relative, resolve } from 'node:path';
import { MoorageError } from '../shared/errors.ts';
import type { ServerHost } from './bridge/upstreams.ts';
import { type AppImage, ensureApp, packageFolderOf, type ServerRecipe } from './images/app.ts';
import { ensureMachineImage } from './images/machine-image.ts';
import { type CommandPlan, planCommand } from './images/npx.ts';
import type { Log } from './log.ts';
import { processMachine } from './process/driver.ts';
import type { MachineDefinition, ProcessDefinition } from './server.ts';
import { type Lease, Supervisor } from './supervisor/supervisor.ts';
import type {
  MachineDriver,
  MachineImage,
  MachineSpec,
  ProcessSpec,
  RunningMachine,
  ServerProcess,
} from './vm/driver.ts';
import { MachineError } from './vm/error.ts';

export interface MachinesOptions {
  readonly definitions: readonly MachineDefinition[];
  /** Boots microVMs; absent where this host cannot: every machine is then a plain process. */
  readonly driver?: MachineDriver;
  /** Folder of the machines' disks. */
  readonly stateDir: string;
  readonly cacheDir: string;
  /** Folder of the configuration: `files` are relative to it. */
  readonly configDir: string;
  readonly log: Log;
}

/** Whoever owns the processes in machines that sleep. */
export interface Sleepers {
  /** What is kept with the image of a machine: JSON-safe. */
  carry(machine: string): unknown;
  /** Takes over the processes of a machine that slept through a restart, with what was kept. */
  adopt(machine: RunningMachine, carry: unknown): { kept: number; ended: number };
}

interface Built {
  readonly image: MachineImage;
  readonly app: AppImage;
}

export class Machines implements ServerHost {
  readonly #options: MachinesOptions;
  readonly #supervisor: Supervisor;
  readonly #definitions: ReadonlyMap<string, MachineDefinition>;
  readonly #images = new Map<string, Promise<Built>>();
  #sleepers: Sleepers | undefined;

  constructor(options: MachinesOptions) {
    this.#options = options;
    this.#supervisor = new Supervisor({ log: options.log });
    this.#definitions = new Map(options.definitions.map((definition) => [definition.key, definition]));
    for (const definition of options.definitions) this.#define(definition);
  }

  /** What a machine is on this host. @throws MoorageError `route_stale` for an unknown one. */
  runtimeOf(key: string): 'vm' | 'process' {
    const definition = this.#definitions.get(key);
    if (!definition) throw new MoorageError('route_stale', `This origin has no machine "${key}".`);
    return this.#options.driver ? definition.runtime : 'process';
  }

  /**
   * Builds the images of these machines that are not there, with progress in the log.
   * @throws MachineError naming what to do.
   */
  async prepare(keys: Iterable<string> = this.#definitions.keys()): Promise<void> {
    for (const key of keys) {
      const definition = this.#definitions.get(key);
      if (definition && this.runtimeOf(definition.key) === 'vm') await this.#image(definition);
    }
  }

  /**
   * Finds the machines that sleep since an earlier life of the agent. Those that never sleep by themselves are woken. One
   * whose image is of no use is reported, and boots from its disk when it is called.
   */
  async recall(sleepers: Sleepers): Promise<void> {
    this.#sleepers = sleepers;
    for (const definition of this.#definitions.values()) {
      if (this.runtimeOf(definition.key) === 'vm') await this.#recall(definition, sleepers);
    }
  }

  lease(definition: ProcessDefinition): Promise<Lease> {
    return this.#supervisor.lease(definition.machine);
  }

  leaseNow(definition: ProcessDefinition, machine: RunningMachine): Lease | undefined {
    return this.#supervisor.leaseNow(definition.machine, machine);
  }

  whenAwake(definition: ProcessDefinition, act: () => void): void {
    this.#supervisor.whenAwake(definition.machine, act);
  }

  async start(server: ProcessDefinition, machine: RunningMachine): Promise<ServerProcess> {
    return await machine.spawn(await this.#processSpec(server));
  }

  /** All machines, for people. */
  states(): { key: string; state: string }[] {
    return this.#supervisor.states();
  }

  async close(): Promise<void> {
    await this.#supervisor.close();
  }

  #define(definition: MachineDefinition): void {
    const { driver } = this.#options;
    if (!driver || definition.runtime === 'process') {
      this.#supervisor.define(definition.key, () => Promise.resolve(processMachine()));
      return;
    }
    this.#supervisor.define(
      definition.key,
      async (progress, signal) => driver.boot(await this.#spec(definition), progress, signal),
      { sleeps: definition.sleep, carry: () => this.#sleepers?.carry(definition.key) },
    );
  }

  async #recall(definition: MachineDefinition, sleepers: Sleepers): Promise<void> {
    const { key } = definition;
    const { driver, log } = this.#options;
    try {
      if (!(await driver?.isAsleep?.(this.#dir(key)))) return;
      const found = await driver?.recall?.(await this.#spec(definition));
      if (!found) return;
      this.#supervisor.adopt(key, found.machine);
      const { kept, ended } = sleepers.adopt(found.machine, found.carry);
      log.info(`machine ${key}: sleeps with ${kept} server processes${ended > 0 ? `; ${ended} others end` : ''}`);
    } catch (error) {
      if (!(error instanceof MachineError)) throw error;
      log.warn(`machine ${key} cannot be woken, it will boot from its disk: ${error.message}`);
      return;
    }
    if (definition.sleep.pauseAfterMs === Number.POSITIVE_INFINITY) {
      this.#supervisor.lease(key).then(
        (lease) => lease.release(),
        (error: Error) => log.warn(error.message),
      );
    }
  }

  #dir(key: string): string {
    return join(this.#options.stateDir, 'machines', key);
  }

  async #spec(definition: MachineDefinition): Promise<MachineSpec> {
    const { key, memoryMiB, cpus, diskMiB } = definition;
    const { image } = await this.#image(definition);
    return { key, dir: this.#dir(key), image, memoryMiB, cpus, diskMiB, hostname: key.replace(/-+$/, '') };
  }

  #image(definition: MachineDefinition): Promise<Built> {
    const known = this.#images.get(definition.key);
    if (known) return known;
    const building = this.#build(definition);
    this.#images.set(definition.key, building);
    building.catch(() => this.#images.delete(definition.key));
    return building;
  }

  async #build(definition: MachineDefinition): Promise<Built> {
    const { cacheDir, log } = this.#options;
    const progress = (text: string) => log.info(`machine ${definition.key}: ${text}`);
    const servers: Record<string, ServerRecipe> = {};
    for (const server of definition.servers) {
      const plan = planCommand(server.entry.command, server.entry.args);
      const files = await this.#files(server, plan);
      servers[server.name] = { npm: plan.kind === 'npm' ? plan.npm : [], ...(files === undefined ? {} : { files }) };
    }
    const [image, app] = await Promise.all([
      ensureMachineImage(cacheDir, progress),
      ensureApp(cacheDir, { servers }, progress),
    ]);
    return { image: app.path === undefined ? image : { ...image, app: app.path }, app };
  }

  /** The host folder that goes into the image: the configured one, else the package that a script belongs to. */
  async #files({ entry }: ProcessDefinition, plan: CommandPlan): Promise<string | undefined> {
    const { configDir } = this.#options;
    if (entry.files !== undefined) return resolve(configDir, entry.files);
    return plan.kind === 'files' ? await packageFolderOf(resolve(configDir, plan.file)) : undefined;
  }

  async #processSpec(server: ProcessDefinition): Promise<ProcessSpec> {
    const { name, entry } = server;
    const definition = this.#definitions.get(server.machine);
    if (!definition || this.runtimeOf(server.machine) === 'process') {
      const { configDir } = this.#options;
      // As an MCP client starts it: beside its configuration, so that relative paths of scripts hold.
      const cwd = entry.files === undefined ? configDir : resolve(configDir, entry.files);
      return {
        argv: [entry.command, ...entry.args],
        env: entry.env,
        cwd,
      };
    }
    const { app } = await this.#image(definition);
    const plan = planCommand(entry.command, entry.args);
    const files = await this.#files(server, plan);
    const folder = app.guestFolder(name);
    const cwd = files === undefined ? `/data/${name}` : join(folder, 'files');
    switch (plan.kind) {
      case 'npm':
        return { argv: [...(await app.resolveBin(name, plan.bin)), ...plan.args], env: entry.env, cwd };
      case 'files': {
        // With `files` a script's path is relative to that folder, else to the configuration.
        const base = entry.files === undefined ? this.#options.configDir : (files ?? '');
        const script = join(folder, 'files', relative(files ?? '', resolve(base, plan.file)));
        return { argv: ['node', ...plan.nodeArgs, script, ...plan.args], env: entry.env, cwd };
      }
      case 'plain':
        return { argv: plan.argv, env: entry.env, cwd };
    }
  }
}
