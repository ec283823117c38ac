/**
 * Owns one running agent: its HTTP interface on a Unix socket (or loopback TCP when told so), its link to the edge, its
 * machines and server processes. Starts them in order, stops them in the reverse one.
 *
 * Nothing here may rely on the edge being on the same host: the two meet only in HTTP requests that come in with a
 * grant, and in the link that goes out.
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import type { JWK } from 'jose';
import { isolationOf } from '../shared/config/entry.ts';
import type { PublicKey } from '../shared/enrolment.ts';
import { importKey } from '../shared/grant.ts';
import { isNotification } from '../shared/jsonrpc.ts';
import { originApi } from './api.ts';
import { type CopiedPeers, copiedPeers } from './bridge/copied.ts';
import { Eras } from './bridge/eras.ts';
import type { ListChanged } from './bridge/lane/list-watch.ts';
import { isVirtual, VirtualSessions } from './bridge/lane/virtual-sessions.ts';
import { Lanes } from './bridge/lanes.ts';
import { ModernPeers } from './bridge/modern-peers.ts';
import { isListChange, type Unasked } from './bridge/peer.ts';
import { Sessions } from './bridge/sessions.ts';
import { takeOver } from './bridge/take-over.ts';
import { type ServerHost, type Trouble, Upstreams } from './bridge/upstreams.ts';
import { Forks } from './forks.ts';
import { Journal } from './journal/journal.ts';
import { Link } from './link/link.ts';
import type { Log } from './log.ts';
import type { Machines, Sleepers } from './machines.ts';
import { PinnedKeys } from './pinned-keys.ts';
import { homeOf } from './places.ts';
import { Replays } from './replays.ts';
import type { Secrets } from './secrets/secrets.ts';
import { discoveryOf, isHttpDefinition, type ProcessDefinition, type ServerDefinition } from './server.ts';
import { Entrances } from './shell/entrances.ts';

/** Where the agent listens: a Unix socket (the default everywhere) or loopback TCP. */
export type Listen = { readonly socket: string } | { readonly host: string; readonly port: number };

export interface AgentOptions {
  readonly originId: string;
  /** This origin's private key (Ed25519 JWK), asked for whenever it dials: it may be changed meanwhile. */
  readonly key: () => Promise<JWK>;
  /** The edge's public keys that are pinned, and what takes those that the edge puts in their place. */
  readonly edgeKeys: readonly PublicKey[];
  readonly onEdgeKeys: (keys: readonly PublicKey[]) => void;
  /** Base URL of the edge. */
  readonly edgeUrl: string;
  /** What whatever stands in front of the edge wants to see. Secret. */
  readonly edgeHeaders: Readonly<Record<string, string>>;
  readonly listen: Listen;
  readonly version: string;
  readonly servers: readonly ServerDefinition[];
  readonly machines: Machines;
  /** What servers get that the configuration only names. */
  readonly secrets: Secrets;
  /** File of the agent's own in which streams are kept that clients may resume. */
  readonly journalPath: string;
  readonly log: Log;
}

export interface RunningAgent {
  /** Resolves when the edge knows this origin's servers. */
  readonly ready: Promise<void>;
  /** Ends the processes of servers and the connections to them, so that the next use starts new ones. @returns how many. */
  restart(which: (definition: ServerDefinition) => boolean): Promise<number>;
  readonly forks: Forks;
  /** What is served here by name, forks included: they come and go. */
  readonly servers: ReadonlyMap<string, ServerDefinition>;
  /** Servers that keep dying, or do not answer. */
  troubles(): Trouble[];
  /** Stops taking requests, hibernates the machines that can sleep, ends everything else. */
  stop(): Promise<void>;
}

/** What answers messages: everything of an agent but its network and its machines. */
export interface OriginParts {
  readonly sessions: Sessions;
  readonly journal: Journal;
  readonly lanes: Lanes;
  /** What becomes of the processes of machines that sleep. */
  readonly sleepers: Sleepers;
  /** As in `RunningAgent`. */
  restart(which: (definition: ServerDefinition) => boolean): Promise<number>;
  /** What becomes of the processes of a machine that is copied (`Forks`). */
  copied(from: ServerDefinition, to: ProcessDefinition): CopiedPeers;
  troubles(): Trouble[];
  close(): Promise<void>;
}

export function originParts(options: {
  readonly host: ServerHost;
  /** By their names. */
  readonly servers: ReadonlyMap<string, ServerDefinition>;
  /** As in `AgentOptions`. */
  readonly secrets: Secrets;
  /** As in `AgentOptions`. */
  readonly journalPath: string;
  readonly log: Log;
  /** What a server says unasked to sessions of clients. */
  readonly unasked: Unasked;
  /** That a list changed at a server that lanes use. */
  readonly changed: ListChanged;
}): OriginParts {
  const upstreams = new Upstreams(options);
  const eras = new Eras({ upstreams, log: options.log });
  const peers = new ModernPeers({ upstreams, eras });
  const sessions = new Sessions({
    upstreams,
    eras,
    peers,
    unasked: (to, message, starting) => {
      const [ours, clients] = [to.filter(isVirtual), to.filter((session) => !isVirtual(session))];
      if (ours.length > 0) virtual.unasked(ours, message);
      const lane = isNotification(message) && isListChange(message) ? virtual.laneOf(ours) : undefined;
      if (lane) options.changed(lane, message, starting ?? false);
      if (clients.length > 0) options.unasked(clients, message, starting);
    },
  });
  const virtual = new VirtualSessions({ sessions });
  const journal = new Journal({ path: options.journalPath, log: options.log });
  const close = async () => {
    virtual.close();
    // The calls that end with the servers have their last word first.
    await upstreams.close();
    journal.close();
  };
  const lanes = new Lanes({ peers, eras, virtual, changed: options.changed });
  const carry = (machine: string) => upstreams.carry(machine);
  const copied = (from: ServerDefinition, to: ProcessDefinition) =>
    copiedPeers(carry(from.machine), from, to, (carried) => upstreams.isCurrent(carried, to));
  const sleepers: Sleepers = {
    carry,
    adopt: (found) => takeOver({ upstreams, sessions, peers }, options.servers, found),
  };
  const restart = (which: (definition: ServerDefinition) => boolean) => upstreams.restart(which);
  return { sessions, lanes, journal, sleepers, copied, restart, troubles: () => upstreams.troubles(), close };
}

/** Calls in flight get this long to finish when the agent stops, in milliseconds. */
const STOP_GRACE_MS = 5_000;

/** Starts an agent. @throws Error when another agent listens at the same place. */
export async function startAgent(options: AgentOptions): Promise<RunningAgent> {
  const { log, machines, secrets } = options;
  await refuseSecond(options.listen);
  let link: Link | undefined;
  const servers = new Map(options.servers.map((definition) => [definition.name, definition]));
  const parts = originParts({
    host: machines,
    servers,
    secrets,
    journalPath: options.journalPath,
    log,
    unasked: (to, message, starting) => link?.publish(to, message, starting),
    changed: (lane, message, starting) => link?.publish([], message, starting, lane),
  });
  const pinned = await PinnedKeys.of(options.edgeKeys, {
    originId: options.originId,
    now: Date.now,
    onChange: options.onEdgeKeys,
  });
  const replays = new Replays(Date.now);
  const server = createServer(
    originApi({
      ...parts,
      originId: options.originId,
      edgeKeys: () => pinned.keys,
      replays,
      servers,
      ended: (definition) => machines.ended(definition),
      log,
    }),
  );
  const forks = new Forks({
    servers,
    machines,
    entrances: new Entrances({ machines, servers }),
    folder: machines.folder,
    copied: parts.copied,
    announce: async () => await link?.announce(),
    log,
    now: Date.now,
  });
  await machines.recall(parts.sleepers);
  // A tool may be slow: only the client and the tool decide how long a call takes.
  server.requestTimeout = 0;
  server.keepAliveTimeout = 75_000;
  await listen(server, options.listen);
  link = new Link({
    edgeUrl: options.edgeUrl,
    headers: options.edgeHeaders,
    originId: options.originId,
    key: async () => importKey(await options.key()),
    agentVersion: options.version,
    servers: () =>
      [...servers.values()].map((definition) => ({
        name: definition.name,
        machine: definition.machine,
        deployment: definition.deployment,
        discovery: discoveryOf(definition),
        isolation: isolationOf(definition.entry),
        runtime: isHttpDefinition(definition) ? 'http' : machines.runtimeOf(homeOf(definition)),
      })),
    onWelcome: ({ now, keys }) => {
      replays.setEdgeClock(now);
      pinned.learn(keys).catch((error: Error) => log.warn(`link: the edge's keys were not taken: ${error.message}`));
    },
    log,
  });
  return {
    ready: link.ready,
    restart: parts.restart,
    forks,
    servers,
    troubles: () => parts.troubles(),
    stop: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const late = new Promise<void>((resolve) => setTimeout(resolve, STOP_GRACE_MS).unref());
      server.closeIdleConnections();
      await Promise.race([closed, late]);
      link?.close();
      await parts.close();
      await machines.close();
      server.closeAllConnections();
    },
  };
}

/** Before anything of the state folder is touched: the journal of a running agent is its own. */
async function refuseSecond(where: Listen): Promise<void> {
  if ('socket' in where && (await answers(where.socket))) {
    throw new Error('Another agent is running for this state folder. Stop it first.');
  }
}

async function listen(server: Server, where: Listen): Promise<void> {
  if ('socket' in where) {
    mkdirSync(dirname(where.socket), { recursive: true, mode: 0o700 });
    rmSync(where.socket, { force: true });
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen('socket' in where ? { path: where.socket } : { host: where.host, port: where.port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  if ('socket' in where) chmodSync(where.socket, 0o600);
}

/** Whether somebody listens at a socket: what a crash leaves behind refuses connections. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
