/**
 * Owns the machines of this origin: those of the configuration, those of single callers, and forks. Where each is placed, how it
 * boots, what becomes of it after a restart and when it is removed; what it is made of is `blueprints.ts`.
 */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Isolation } from '../shared/config/isolation.ts';
import { MoorageError } from '../shared/errors.ts';
import { Blueprints } from './blueprints.ts';
import type { TakenOver } from './bridge/take-over.ts';
import type { ServerHost } from './bridge/upstreams.ts';
import { CallersMachines, isForgotten } from './callers-machines.ts';
import { noteBoot } from './images/uses.ts';
import type { Log } from './log.ts';
import { homeOf, noteOwner, ownerFile, type Place, placesIn } from './places.ts';
import { processMachine } from './process/driver.ts';
import type { ForkOf, MachineDefinition, Own, ProcessDefinition, ServerDefinition } from './server.ts';
import type { Lease } from './supervisor/slot.ts';
import { Supervisor } from './supervisor/supervisor.ts';
import { Templates } from './templates.ts';
import type { CopyCost, MachineDriver, ProcessSpec, RunningMachine, ServerProcess } from './vm/driver.ts';
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
  /** What machines that are awake may have together; absent: as much as they want. */
  readonly memoryMiB?: number;
  /** Sleeping machines for which something may wait ahead of their wake; absent: none. */
  readonly standbys?: number;
  readonly log: Log;
}

/** Whoever owns the processes in machines that sleep. */
export interface Sleepers {
  /** What is kept with the image of a machine: JSON-safe. */
  carry(machine: string): unknown;
  /** Takes over the processes of a machine that slept through a restart, with what was kept. */
  adopt(found: TakenOver): { kept: number; ended: number };
}

/** A machine as its owner is told of it. */
export interface MachineListing {
  readonly key: string;
  readonly state: string;
  /** Its name in the configuration; for a caller's own, of what it is made after. */
  readonly machine: string;
  readonly isolation: Isolation;
  /** Subject of the principal whose it is. */
  readonly owner?: string;
  /** What it is a copy of: a server, a fork, or a single caller's machine by its key. */
  readonly forkOf?: string;
  /** A sentence without its full stop, for one that keeps ending by itself. */
  readonly crashLoop?: string;
}

/** What goes on in a copy, as `CopyOptions` has it. */
export interface Copied {
  readonly carry: unknown;
  readonly keep: readonly number[];
}

/** A machine that is made after the configuration's: by its key, and whose it is. */
interface Made {
  readonly key: string;
  readonly own?: Own;
}

export class Machines implements ServerHost {
  readonly #options: MachinesOptions;
  readonly #supervisor: Supervisor;
  readonly #definitions: ReadonlyMap<string, MachineDefinition>;
  readonly #callers = new CallersMachines();
  /** Copies of machines, by their keys: how each is configured, and what it is a copy of. */
  readonly #forks = new Map<string, { readonly like: MachineDefinition; readonly fork: ForkOf }>();
  readonly #blueprints: Blueprints;
  readonly #templates: Templates | undefined;
  #sleepers: Sleepers | undefined;

  constructor(options: MachinesOptions) {
    this.#options = options;
    const { driver, log } = options;
    this.#templates = driver && new Templates({ driver, folder: join(options.stateDir, 'templates'), log });
    this.#supervisor = new Supervisor({ log, memoryMiB: options.memoryMiB, standbys: options.standbys });
    this.#definitions = new Map(options.definitions.map((definition) => [definition.key, definition]));
    this.#blueprints = new Blueprints({
      ...options,
      definitions: this.#definitions,
      hasDriver: driver !== undefined,
      folder: this.folder,
    });
    for (const definition of options.definitions) if (definition.isolation === 'server') this.#define(definition);
  }

  /** Where the machines' folders are. */
  get folder(): string {
    return join(this.#options.stateDir, 'machines');
  }

  /** As `Blueprints.runtimeOf`. */
  runtimeOf(name: string): 'vm' | 'process' {
    return this.#blueprints.runtimeOf(name);
  }

  /** As `Blueprints.prepare`. */
  async prepare(keys?: Iterable<string>): Promise<void> {
    await this.#blueprints.prepare(keys);
  }

  /**
   * Finds the machines that sleep since an earlier life of the agent. Those that never sleep by themselves are woken. One
   * whose image is of no use is reported, and boots from its disk when it is called.
   */
  async recall(sleepers: Sleepers): Promise<void> {
    this.#sleepers = sleepers;
    const isolated = [...this.#definitions.values()].filter(({ isolation }) => isolation !== 'server');
    await this.#templates?.sweep(new Set(isolated.map(({ key }) => key)));
    await this.#options.driver?.sweep?.(this.folder);
    const isMicroVm = (definition: MachineDefinition) => this.runtimeOf(definition.key) === 'vm';
    for (const definition of this.#definitions.values()) {
      if (isMicroVm(definition) && definition.isolation === 'server') await this.#recall(definition, sleepers);
    }
    for (const [key, { like }] of this.#forks) await this.#recall(like, sleepers, { key });
    for (const { usedAt, ...place } of placesIn(this.folder)) {
      const definition = this.#definitions.get(place.own.home);
      // What is configured otherwise by now is left as it is: nobody is led there.
      if (!definition || definition.isolation !== place.own.isolation || !isMicroVm(definition)) continue;
      this.#define(definition, place);
      if (isForgotten(place, usedAt, Date.now())) await this.remove(place.key);
      else await this.#recall(definition, sleepers, place);
    }
  }

  async lease(definition: ProcessDefinition): Promise<Lease> {
    const { machine: key, own } = definition;
    if (own) this.#makeKnown({ key, own });
    return await this.#supervisor.lease(key);
  }

  leaseNow(definition: ProcessDefinition, machine: RunningMachine): Lease | undefined {
    return this.#supervisor.leaseNow(definition.machine, machine);
  }

  whenAwake(definition: ProcessDefinition, act: () => void): void {
    this.#supervisor.whenAwake(definition.machine, act);
  }

  async start(
    server: ProcessDefinition,
    machine: RunningMachine,
    env: Readonly<Record<string, string>>,
  ): Promise<ServerProcess> {
    const spec = await this.#blueprints.processSpec(server);
    return await machine.spawn({ ...spec, env: { ...spec.env, ...env } });
  }

  /** All machines, for people. */
  states(): MachineListing[] {
    return this.#supervisor.states().map((seen) => {
      const { key } = seen;
      const own = this.#callers.ownOf(key);
      if (own) return { ...seen, machine: own.home, isolation: own.isolation, owner: own.principal };
      const copy = this.#forks.get(key);
      if (copy) {
        const { of, home, principal } = copy.fork;
        const owner = principal === undefined ? {} : { owner: principal };
        return { ...seen, machine: home, isolation: 'server', ...owner, forkOf: of };
      }
      return { ...seen, machine: key, isolation: 'server' };
    });
  }

  /** Removes a single caller's machine. @throws MoorageError `not_found`. */
  async removeOwn(key: string): Promise<void> {
    if (!this.#callers.ownOf(key)) {
      throw new MoorageError('not_found', `"${key}" is no machine of a single principal or session.`);
    }
    await this.remove(key);
  }

  /** Whose the machine of this key is, where it is a caller's own. */
  ownOf(key: string): Own | undefined {
    return this.#callers.ownOf(key);
  }

  /** Whether there is a machine of this key. */
  isKnown(key: string): boolean {
    return this.#supervisor.has(key) || this.#definitions.has(key);
  }

  /**
   * Copies the machine that `from` runs in, which goes on, as that of `to`. @throws MoorageError when it cannot run,
   * MachineError `fork-failed` or another when it is not copied.
   */
  async fork(
    from: ProcessDefinition,
    to: ProcessDefinition,
    { files, copied }: { files: Readonly<Record<string, string>>; copied: () => Copied },
  ): Promise<CopyCost> {
    const definition = this.#definitions.get(homeOf(to));
    if (!definition) throw new MoorageError('route_stale', `This origin has no machine "${homeOf(to)}".`);
    const child = await this.#blueprints.spec(definition, to.machine);
    return await this.#supervisor.fork(from.machine, async (machine, isIdle) => {
      if (!machine.fork) throw new MachineError('fork-failed', 'a machine of this kind cannot be copied');
      const [carry, keep, ownCarry] = [() => copied().carry, () => copied().keep, () => this.#carry(from.machine)];
      return await machine.fork(child, { files, isIdle, ownCarry, carry, keep });
    });
  }

  /** Takes over the processes that go on in a copy, which is made known. */
  async recallFork(to: ProcessDefinition): Promise<void> {
    this.defineFork(to);
    const like = this.#forks.get(to.machine)?.like;
    if (!like || !this.#sleepers) return;
    await noteBoot(this.#dir(to.machine), (await this.#blueprints.provision(like)).uses);
    await this.#recall(like, this.#sleepers, { key: to.machine });
  }

  /** Makes a copy known that is there. */
  defineFork(to: ProcessDefinition): void {
    const definition = this.#definitions.get(homeOf(to));
    if (!definition || !to.fork) return;
    this.#forks.set(to.machine, { like: definition, fork: to.fork });
    this.#define(definition, { key: to.machine });
  }

  /** A session or a lane has ended: what was its alone goes with it. */
  ended({ machine, own }: ServerDefinition): void {
    if (own?.isolation !== 'session') return;
    this.remove(machine).catch((error: unknown) => this.#options.log.warn(`machine ${machine}: ${String(error)}`));
  }

  /** Ends a machine and removes all that it has, its disk included. A caller's own one is made anew when it is used again. */
  async remove(key: string): Promise<void> {
    await this.#supervisor.remove(key, () => rm(this.#dir(key), { recursive: true, force: true }));
    this.#callers.delete(key);
    this.#forks.delete(key);
  }

  /** Starts another command as the server would be started. Rejects as `RunningMachine.spawn`. */
  async enter(
    server: ProcessDefinition,
    machine: RunningMachine,
    { argv, env, terminal }: Pick<ProcessSpec, 'argv' | 'env' | 'terminal'>,
  ): Promise<ServerProcess> {
    const spec = await this.#blueprints.processSpec(server, argv);
    return await machine.spawn({ ...spec, env: { ...spec.env, ...env }, ...(terminal ? { terminal } : {}) });
  }

  async close(): Promise<void> {
    await this.#supervisor.close();
  }

  /** @throws MoorageError `overloaded`, `route_stale`. */
  #makeKnown(place: Place): void {
    const { key, own } = place;
    if (this.#callers.use(key, this.#dir(key), Date.now())) return;
    this.#callers.requireRoom();
    const definition = this.#definitions.get(own.home);
    if (!definition) throw new MoorageError('route_stale', `This origin has no machine "${own.home}".`);
    this.#define(definition, place);
  }

  #define(definition: MachineDefinition, place: Made = definition): void {
    const { driver } = this.#options;
    const { key, own } = place;
    if (own) this.#callers.add({ key, own }, Date.now());
    if (!driver || definition.runtime === 'process') {
      this.#supervisor.define(key, () => Promise.resolve(processMachine()));
      return;
    }
    this.#supervisor.define(
      key,
      async (progress, signal) => {
        const [{ uses }, spec] = [
          await this.#blueprints.provision(definition),
          await this.#blueprints.spec(definition, key),
        ];
        if (own && !existsSync(spec.dir)) {
          const made = await this.#templates?.make(own.home, spec, ownerFile(own), progress, signal);
          if (made) await noteBoot(spec.dir, uses);
          if (made) return made;
        }
        if (own) noteOwner(spec.dir, own);
        await noteBoot(spec.dir, uses);
        return await driver.boot(spec, progress, signal);
      },
      { memoryMiB: definition.memoryMiB, sleeps: definition.sleep, carry: () => this.#carry(key) },
    );
  }

  async #recall(definition: MachineDefinition, sleepers: Sleepers, made: Made = definition): Promise<void> {
    const { key, own } = made;
    const { driver, log } = this.#options;
    try {
      if (!(await driver?.isAsleep?.(this.#dir(key)))) return;
      const found = await driver?.recall?.(await this.#blueprints.spec(definition, key));
      if (!found) return;
      this.#supervisor.adopt(key, found.machine);
      const { kept, ended } = sleepers.adopt({ ...found, place: own && { key, own } });
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

  #carry(key: string): unknown {
    return this.#sleepers?.carry(key);
  }

  #dir(key: string): string {
    return join(this.folder, key);
  }
}
