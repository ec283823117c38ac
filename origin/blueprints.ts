/**
 * Owns what machines and processes are made of: the images of each machine of the configuration, and from them what a machine
 * and a server's process are started with. The runtime is decided here, once: `vm`, or `process` where the configuration or
 * the host says so.
 *
 * Invariant: an image is built at most once per machine at a time.
 */
import { join, resolve } from 'node:path';
import { MoorageError } from '../shared/errors.ts';
import { Gateway } from './egress/gateway.ts';
import { ConfiguredUses } from './images/uses.ts';
import type { Log } from './log.ts';
import { homeOf } from './places.ts';
import { type Provision, provision } from './provision.ts';
import type { MachineDefinition, ProcessDefinition } from './server.ts';
import type { MachineSpec, ProcessSpec } from './vm/driver.ts';
import { MachineError } from './vm/error.ts';

export interface BlueprintsOptions {
  /** By their keys. */
  readonly definitions: ReadonlyMap<string, MachineDefinition>;
  /** Whether this host runs microVMs. */
  readonly hasDriver: boolean;
  /** Folder of the machines' folders. */
  readonly folder: string;
  readonly stateDir: string;
  readonly cacheDir: string;
  /** Folder of the configuration: `files` are relative to it. */
  readonly configDir: string;
  readonly log: Log;
}

export class Blueprints {
  readonly #options: BlueprintsOptions;
  readonly #provisions = new Map<string, Promise<Provision>>();
  readonly #uses: ConfiguredUses;

  constructor(options: BlueprintsOptions) {
    this.#options = options;
    this.#uses = new ConfiguredUses(options.cacheDir, options.stateDir, options.definitions.keys());
  }

  /** What the machine of this name is on this host. @throws MoorageError `route_stale` for an unknown one. */
  runtimeOf(name: string): 'vm' | 'process' {
    const definition = this.#options.definitions.get(name);
    if (!definition) throw new MoorageError('route_stale', `This origin has no machine "${name}".`);
    return this.#options.hasDriver ? definition.runtime : 'process';
  }

  /** Builds the images of these machines that are not there. The log has the progress, and which cannot be built and why. */
  async prepare(keys: Iterable<string> = this.#options.definitions.keys()): Promise<void> {
    for (const key of keys) {
      const definition = this.#options.definitions.get(key);
      if (!definition || this.runtimeOf(definition.key) !== 'vm') continue;
      try {
        await this.provision(definition);
      } catch (error) {
        if (!(error instanceof MachineError)) throw error;
        this.#options.log.error(`machine ${key}: ${error.message}${error.detail ? `\n${error.detail}` : ''}`);
      }
    }
  }

  /** What boots the machine of this key, which is made after `definition`. Rejects as `provision`. */
  async spec(definition: MachineDefinition, key: string): Promise<MachineSpec> {
    const { memoryMiB, cpus, diskMiB, pids } = definition;
    const { image } = await this.provision(definition);
    const hostname = hostnameOf(key);
    const egress = new Gateway({
      rules: definition.egress,
      bytesPerSecond: definition.networkRate,
      log: (line) => this.#options.log.machine(key, line),
    });
    return { key, dir: join(this.#options.folder, key), image, memoryMiB, cpus, diskMiB, pids, hostname, egress };
  }

  /** Its images, built where they are not there. Rejects with a MachineError naming what to do. */
  provision(definition: MachineDefinition): Promise<Provision> {
    const { key } = definition;
    const known = this.#provisions.get(key);
    if (known) return known;
    const building = this.#build(definition);
    this.#provisions.set(key, building);
    building.catch(() => this.#provisions.delete(key));
    return building;
  }

  async #build(definition: MachineDefinition): Promise<Provision> {
    const { key } = definition;
    const { log } = this.#options;
    const built = await provision(definition, this.#options, (text) => log.info(`machine ${key}: ${text}`));
    await this.#uses.note(key, built.uses);
    return built;
  }

  /** How a server's process is started, or `instead` in its place. Rejects as `provision`. */
  async processSpec(server: ProcessDefinition, instead?: readonly string[]): Promise<ProcessSpec> {
    const { entry } = server;
    const definition = this.#options.definitions.get(homeOf(server));
    if (!definition || this.runtimeOf(definition.key) === 'process') {
      const { configDir } = this.#options;
      if (entry.command === undefined) {
        throw new MachineError(
          'host-unsupported',
          `server "${server.name}" is a container image, which needs microVMs`,
        );
      }
      // As an MCP client starts it: beside its configuration, so that relative paths of scripts hold.
      const cwd = entry.files === undefined ? configDir : resolve(configDir, entry.files);
      return {
        argv: [entry.command, ...entry.args],
        env: entry.env,
        cwd,
      };
    }
    const name = server.fork?.server ?? server.name;
    return await (await this.provision(definition)).processOf({ ...server, name }, instead);
  }
}

/** `notes.p-0123…` is the host `notes-0123456789ab`: enough to tell machines apart within the length of a label. */
function hostnameOf(key: string): string {
  const [name = '', digest = ''] = key.split(/\.[ps]-/);
  return digest === '' ? name.replace(/-+$/, '') : `${name.slice(0, 50)}-${digest.slice(0, 12)}`;
}
