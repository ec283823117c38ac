/**
 * Owns the half of a router that runs at an origin: its machines, its agent and its owner's socket, started in order and
 * stopped in the reverse one. With an edge in the same process it is a router; alone it is `moorage origin run`.
 */
import { join } from 'node:path';
import { type AgentOptions, type RunningAgent, startAgent } from '../origin/agent.ts';
import { type Control, startControl } from '../origin/control/control.ts';
import { forkRoutes } from '../origin/control/forks.ts';
import { holdRoutes } from '../origin/control/holds.ts';
import { machineRoutes } from '../origin/control/machines.ts';
import { secretRoutes } from '../origin/control/secrets.ts';
import { shellSocket } from '../origin/control/shell.ts';
import { sshSocket } from '../origin/control/ssh.ts';
import { Holds } from '../origin/holds.ts';
import { defaultCacheDir } from '../origin/images/cache.ts';
import { DEFAULT_GRACE_MS, pruneImages } from '../origin/images/garbage.ts';
import { ensureMachineImage } from '../origin/images/machine-image.ts';
import type { Log } from '../origin/log.ts';
import { Machines } from '../origin/machines.ts';
import { Secrets } from '../origin/secrets/secrets.ts';
import { SecretStore } from '../origin/secrets/store.ts';
import { machineDefinitions, memoryBudgetMiB, type ServerDefinition, serverDefinitions } from '../origin/server.ts';
import { Entrances } from '../origin/shell/entrances.ts';
import { SHELL_PATH, SSH_PATH } from '../origin/shell/protocol.ts';
import type { RunningSsh } from '../origin/shell/ssh-server.ts';
import { Visits } from '../origin/shell/visits.ts';
import { evictLeftovers } from '../origin/vm/disk.ts';
import { QemuDriver } from '../origin/vm/qemu.ts';
import type { Config } from '../shared/config.ts';
import { type Fallback, type Settled, settleIsolation } from './isolation.ts';
import { openSsh } from './ssh.ts';
import { socketPath } from './state.ts';
import { VERSION } from './version.ts';

/** Unused images that a start removes, at most. */
const MAX_REMOVED = 20;

export interface OriginHalfOptions {
  readonly configDir: string;
  readonly stateDir: string;
  /** As in `RouterOptions`. */
  readonly fallback?: Fallback;
  readonly prepare?: readonly string[];
  readonly log: Log;
}

/** A copy of a live machine that is served under a name of its own. */
export interface ServedFork {
  readonly server: string;
  /** What was copied: a server, a fork, or a single caller's machine by its key. */
  readonly of: string;
}

export interface OriginHalf {
  /** As this host can serve it. */
  readonly config: Config;
  readonly isolation: Settled['isolation'];
  readonly accelerator: 'kvm' | 'tcg' | undefined;
  /** Where the agent will listen, as workerd names it. */
  readonly address: string;
  /** Starts the agent and the owner's socket. `ready`: resolves when the edge knows this origin's servers. */
  start(
    edge: Pick<AgentOptions, 'originId' | 'key' | 'edgeKeys' | 'onEdgeKeys' | 'edgeUrl' | 'edgeHeaders'>,
  ): Promise<void>;
  /**
   * Builds the images that are missing. Those that cannot be built leave their servers unusable, and the others served.
   * Goes on to remove, in the background, some of those that nobody uses.
   */
  prepare(): Promise<void>;
  /** Copies of machines that are served, and what each is a copy of. */
  forks(): readonly ServedFork[];
  stop(): Promise<void>;
}

/** @throws RouterError when this host cannot isolate machines and `fallback` refuses that; MachineError. */
export async function originHalf(configured: Config, options: OriginHalfOptions): Promise<OriginHalf> {
  const { stateDir, configDir } = options;
  const store = new SecretStore(stateDir);
  const secrets = new Secrets(store);
  const log = secrets.keptOutOf(options.log);
  const { config, isolation } = await settleIsolation(configured, options.fallback ?? 'refuse', log);
  const servers = serverDefinitions(config);
  const definitions = machineDefinitions(servers);
  const cacheDir = defaultCacheDir();
  await evictLeftovers(join(stateDir, 'machines'));
  const driver = isolation === 'vm' ? new QemuDriver({ cacheDir }) : undefined;
  const memoryMiB = memoryBudgetMiB(config.origin.memory);
  const standbys = config.origin.standby;
  const host = { stateDir, cacheDir, configDir, memoryMiB, standbys, log, ...(driver ? { driver } : {}) };
  const machines = new Machines({ definitions, ...host });
  const wanted = preparedMachines(servers, options.prepare);
  const accelerator = driver && wanted.size > 0 ? await chooseAccelerator(driver, cacheDir, log) : undefined;
  const listen = agentAddress(config, stateDir);
  let control: Control | undefined;
  let agent: RunningAgent | undefined;
  let holds: Holds | undefined;
  let garbage: Promise<void> | undefined;
  let ssh: RunningSsh | undefined;
  return {
    config,
    isolation,
    accelerator,
    address: listen.address,
    start: async (edge) => {
      for (const problem of secrets.problems(servers)) log.warn(problem);
      if (servers.length > 0) {
        agent = await startAgent({
          ...edge,
          listen: listen.where,
          version: VERSION,
          servers,
          machines,
          secrets,
          journalPath: join(stateDir, 'streams.db'),
          log,
        });
        await agent.ready;
      }
      const entered = { machines, servers: agent?.servers ?? new Map() };
      const visits = new Visits(entered);
      holds = new Holds({ machines, entrances: new Entrances(entered) });
      ssh = config.ssh && (await openSsh(config.ssh, { stateDir, configDir, visits, log }));
      control = await startControl({
        socket: socketPath(stateDir, 'control.sock'),
        routes: {
          '/v1/holds': holdRoutes(holds),
          '/v1/machines': machineRoutes(machines, () => agent?.troubles() ?? []),
          '/v1/secrets': secretRoutes({ store, restart: async (which) => (await agent?.restart(which)) ?? 0 }),
          ...(agent ? { '/v1/forks': forkRoutes(agent.forks) } : {}),
        },
        sockets: { [SHELL_PATH]: shellSocket(visits), ...(ssh ? { [SSH_PATH]: sshSocket(ssh) } : {}) },
        log,
      });
    },
    prepare: async () => {
      await machines.prepare(wanted);
      if (driver) garbage = removeGarbage(cacheDir, log);
    },
    forks: () =>
      [...(agent?.servers.values() ?? [])].flatMap(({ name, fork }) => (fork ? [{ server: name, of: fork.of }] : [])),
    stop: async () => {
      await control?.close();
      holds?.close();
      await ssh?.close();
      await agent?.stop();
      store.close();
      await garbage;
    },
  };
}

/** Keys of the machines that these servers run in. */
function preparedMachines(servers: readonly ServerDefinition[], names: readonly string[] | undefined): Set<string> {
  const prepared = names === undefined ? servers : servers.filter(({ name }) => names.includes(name));
  return new Set(prepared.map(({ machine }) => machine));
}

async function removeGarbage(cacheDir: string, log: Log): Promise<void> {
  try {
    const options = { graceMs: DEFAULT_GRACE_MS, now: Date.now(), limit: MAX_REMOVED };
    const { removed, bytes } = await pruneImages(cacheDir, options);
    const what = removed.length === 1 ? '1 unused image' : `${removed.length} unused images`;
    if (removed.length > 0) log.info(`removed ${what}, ${Math.ceil(bytes / 1024 / 1024)} MiB`);
  } catch (error) {
    log.warn(`unused images could not be removed: ${String(error)}`);
  }
}

async function chooseAccelerator(driver: QemuDriver, cacheDir: string, log: Log): Promise<'kvm' | 'tcg'> {
  const image = await ensureMachineImage(cacheDir, (text) => log.info(text));
  const { accelerator, reason } = await driver.accelerator(image);
  if (accelerator === 'tcg') log.warn(`KVM does not work here, machines are emulated and slow: ${reason}`);
  else log.info('machines run on KVM');
  const lacks = await driver.lacks(accelerator);
  if (lacks.length > 0) log.info(`this host does not give machines ${lacks.join(', ')}: see "moorage doctor"`);
  return accelerator;
}

function agentAddress(config: Config, stateDir: string) {
  const { listen } = config.origin;
  if (listen === undefined) {
    const socket = socketPath(stateDir, 'origin.sock');
    return { address: `unix:${socket}`, where: { socket } };
  }
  const at = listen.lastIndexOf(':');
  return {
    address: listen,
    where: { host: listen.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(listen.slice(at + 1)) },
  };
}
