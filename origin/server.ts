/**
 * Owns what a server of this origin is once the configuration has been read: how its process is started and where.
 * The deployment id is the digest of everything that decides what runs.
 */
import { createHash } from 'node:crypto';
import { totalmem } from 'node:os';
import { type EgressRule, unionOf } from '../shared/config/egress.ts';
import { isEdgeServer, isHttpServer, isolationOf, machineOf, type OriginServer } from '../shared/config/entry.ts';
import type { HttpServer } from '../shared/config/http-entry.ts';
import type { Isolation } from '../shared/config/isolation.ts';
import type { Limits } from '../shared/config/limits.ts';
import type { MachineServer } from '../shared/config/machine-entry.ts';
import { isOutputOption } from '../shared/config/output.ts';
import type { Config } from '../shared/config.ts';
import { DEFAULT_DISCOVERY, type DiscoverySetting } from '../shared/link.ts';
import type { SleepPolicy } from './supervisor/machine-state.ts';

export interface ServerDefinition {
  readonly name: string;
  readonly entry: OriginServer;
  /** Key of the machine it runs in; servers that share one have the same. */
  readonly machine: string;
  /** Set where that machine is a caller's own (`places.ts`). */
  readonly own?: Own;
  /** Set for a copy of another server (`forks.ts`). */
  readonly fork?: ForkOf;
  /** Digest of the entry, hexadecimal. */
  readonly deployment: string;
}

/** What a fork was made of. */
export interface ForkOf {
  /** What was copied: a server, a fork, or a single caller's machine by its key. */
  readonly of: string;
  /** Name of the server in the configuration, also inside the copied machine: `of`, or what that is a copy of. */
  readonly server: string;
  /** Name of its machine in the configuration. */
  readonly home: string;
  /** Set where the copied machine is of one principal: its subject. The copy serves nobody else. */
  readonly principal?: string;
}

/** Whose a machine is that serves one caller alone. */
export interface Own {
  readonly isolation: Exclude<Isolation, 'server'>;
  /** Name of the machine in the configuration that it is made after. */
  readonly home: string;
  /** Subject of the principal, as its owner reads it. */
  readonly principal: string;
}

/** A server that is started here, as a process in a machine. */
export type ProcessDefinition = ServerDefinition & { readonly entry: MachineServer };
/** A server that runs by itself and is reached over HTTP. */
export type HttpDefinition = ServerDefinition & { readonly entry: HttpServer };

export const isHttpDefinition = (definition: ServerDefinition): definition is HttpDefinition =>
  isHttpServer(definition.entry);
export const isProcessDefinition = (definition: ServerDefinition): definition is ProcessDefinition =>
  !isHttpServer(definition.entry);

/** Subject of the principal whom alone a server's machine serves; undefined where it serves all. */
export const principalOf = ({ own, fork }: ServerDefinition): string | undefined => own?.principal ?? fork?.principal;

/** How the edge may use stored answers to discovery for a server. */
export function discoveryOf(definition: ServerDefinition): DiscoverySetting {
  const { entry } = definition;
  // A machine of one's own may list what is one's own.
  const isShared = isolationOf(entry) === 'server' && principalOf(definition) === undefined;
  const copies = isShared ? DEFAULT_DISCOVERY.copies : 'principal';
  return {
    copies: entry.discovery === 'live' ? 'none' : copies,
    maxAgeS: entry.discoveryMaxAge ?? DEFAULT_DISCOVERY.maxAgeS,
  };
}

/** One machine as the configuration describes it: its servers, and limits that hold for all of them together. */
export interface MachineDefinition {
  readonly key: string;
  readonly isolation: Isolation;
  readonly runtime: 'vm' | 'process';
  readonly servers: readonly ProcessDefinition[];
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly diskMiB: number;
  /** Processes and threads of its servers. */
  readonly pids: number;
  /** Bytes a second that it may send, and receive; absent: as fast as they come. */
  readonly networkRate: number | undefined;
  readonly sleep: SleepPolicy;
  /** What its programs may connect to: all that one of its servers may. */
  readonly egress: readonly EgressRule[];
}

const DEFAULT_SLEEP_MS = { pauseAfter: 10_000, hibernateAfter: 300_000, stopAfter: Number.POSITIVE_INFINITY } as const;

/** A machine sleeps only when all of its servers let it: of each time the longest holds. */
function laziest(policies: readonly MachineServer['sleep'][]): SleepPolicy {
  const longest = (time: keyof typeof DEFAULT_SLEEP_MS) =>
    Math.max(
      ...policies.map((policy) =>
        policy === 'always-on' ? Number.POSITIVE_INFINITY : (policy?.[time] ?? DEFAULT_SLEEP_MS[time]),
      ),
    );
  return {
    pauseAfterMs: longest('pauseAfter'),
    hibernateAfterMs: longest('hibernateAfter'),
    stopAfterMs: longest('stopAfter'),
  };
}

const DEFAULT_MEMORY_MIB = 512;
const DEFAULT_CPUS = 1;
const DEFAULT_DISK_MIB = 2048;
/** 64 servers of Node with a dozen threads each, and some more. */
const DEFAULT_PIDS = 1024;

/** What all machines that are awake may use together, in MiB: what is configured, else three quarters of the host's memory. */
export function memoryBudgetMiB(configured: number | undefined, hostMiB = hostMemoryMiB()): number {
  return configured ?? Math.floor(hostMiB * 0.75);
}

/** Of this host, or of the container that we run in. */
export function hostMemoryMiB(): number {
  const constrained = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  return Math.floor(Math.min(totalmem(), constrained) / 1024 / 1024);
}

/** The servers of the configuration that run at an origin. */
export function serverDefinitions(config: Config): ServerDefinition[] {
  const definitions: ServerDefinition[] = [];
  for (const [name, entry] of config.servers) {
    if (isEdgeServer(entry)) continue;
    // When it sleeps, what becomes of it when it hangs, what it may connect to and what becomes of its words decide nothing about what runs.
    const { sleep: _sleep, egress: _egress, health: _health, ...named } = entry as Partial<MachineServer>;
    const what = Object.fromEntries(Object.entries(named).filter(([name]) => !isOutputOption(name)));
    const deployment = createHash('sha256')
      .update(JSON.stringify([name, what]))
      .digest('hex')
      .slice(0, 16);
    definitions.push({ name, entry, machine: machineOf(name, entry), deployment });
  }
  return definitions;
}

/** The machines that these servers need. Where several servers state a limit they agree (`shared/config.ts` checked). */
export function machineDefinitions(servers: readonly ServerDefinition[]): MachineDefinition[] {
  const byMachine = Map.groupBy(servers.filter(isProcessDefinition), (server) => server.machine);
  return [...byMachine].map(([key, members]) => {
    const limit = (name: keyof Limits) => members.map((m) => m.entry.limits[name]).find((v) => v !== undefined);
    return {
      key,
      isolation: members[0] ? isolationOf(members[0].entry) : 'server',
      runtime: members.every((member) => member.entry.runtime === 'process') ? 'process' : 'vm',
      servers: members,
      memoryMiB: limit('memory') ?? DEFAULT_MEMORY_MIB,
      cpus: limit('cpus') ?? DEFAULT_CPUS,
      diskMiB: limit('disk') ?? DEFAULT_DISK_MIB,
      pids: limit('pids') ?? DEFAULT_PIDS,
      networkRate: limit('network'),
      sleep: laziest(members.map((member) => member.entry.sleep)),
      egress: unionOf(members.map((member) => member.entry.egress ?? [])),
    };
  });
}
