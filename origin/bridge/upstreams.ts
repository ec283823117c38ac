/**
 * Owns the channels to servers: opens them, whatever carries them, and bounds how many there are.
 *
 * Invariants: at most `MAX_PROCESSES` per machine (connections to a server over HTTP count alike): the longest idle one is
 * ended for a new one; a server that keeps dying in a machine is not started there before its pause is over; after `close`
 * nothing is left running.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Log } from '../log.ts';
import type { Redactor } from '../secrets/redact.ts';
import type { Given, Secrets } from '../secrets/secrets.ts';
import { isHttpDefinition, isProcessDefinition, type ProcessDefinition, type ServerDefinition } from '../server.ts';
import type { Lease } from '../supervisor/slot.ts';
import type { RunningMachine, ServerProcess } from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';
import type { ChannelEvents, OpenChannel } from './channel.ts';
import type { Correlates } from './correlate.ts';
import { ModernCorrelator } from './correlate-modern.ts';
import { CrashWatch } from './crash-watch.ts';
import { discoverRequest } from './eras.ts';
import { HttpChannel } from './http-channel.ts';
import { Peer, type PeerOptions } from './peer.ts';
import { StdioChannel } from './stdio-channel.ts';
import { type Keeper, WakingChannel } from './waking-channel.ts';
import { QUESTION_ID, WatchedChannel } from './watched-channel.ts';

/** How a server is started in its machine, and the machine itself, which boots or wakes when it must. */
export interface ServerHost {
  /** The machine, running until the lease is released. @throws MoorageError when it cannot run. */
  lease(definition: ProcessDefinition): Promise<Lease>;
  /** As `lease`, at once, where that machine runs now. */
  leaseNow(definition: ProcessDefinition, machine: RunningMachine): Lease | undefined;
  /** Calls `act` once when the machine runs the next time. */
  whenAwake(definition: ProcessDefinition, act: () => void): void;
  /** `env` adds to what the configuration gives it. @throws MachineError when the process cannot be started. */
  start(
    definition: ProcessDefinition,
    machine: RunningMachine,
    env: Readonly<Record<string, string>>,
  ): Promise<ServerProcess>;
}

/** What the caller decides about a new peer. */
export interface PeerKind {
  readonly mode: 'own' | 'shared';
  readonly correlator: Correlates;
  readonly unasked: PeerOptions['unasked'];
  readonly listsChanged?: boolean;
  /** What its owner must know to take it over after a restart, JSON-safe; absent for a peer that is not worth it. */
  readonly carry?: (peer: Peer) => unknown;
}

/** A process that sleeps, as it is kept with its machine's image. */
export interface Carried {
  readonly server: string;
  readonly deployment: string;
  readonly stream: number;
  /** Names the values of the secrets that it was given (`Given.revision`). */
  readonly secrets: string;
  /** As `PeerKind.carry` gave it. */
  readonly peer: unknown;
}

interface Running {
  readonly definition: ServerDefinition;
  /** Of a process in a machine that sleeps. */
  readonly stream: number | undefined;
  readonly secrets: string;
  /** Of a process. */
  readonly watched: WatchedChannel | undefined;
  carry: ((peer: Peer) => unknown) | undefined;
  lastUsed: number;
}

interface Prepared {
  readonly open: OpenChannel;
  readonly sync: () => Promise<void>;
  readonly stream?: number | undefined;
  readonly secrets: string;
}

/** Something that a server's owner should look at. */
export interface Trouble {
  readonly server: string;
  readonly machine: string;
  readonly trouble: 'crash loop' | 'no answer';
  /** A sentence without its full stop. */
  readonly text: string;
}

/** Server processes in one machine, or connections to one server, at most. */
const MAX_PROCESSES = 64;
/** What every server of its era answers at once: `ping` (basic/utilities/ping), in 2026-07-28 `server/discover`. */
function questionOf(correlator: Correlates): JsonRpcRequest {
  if (correlator instanceof ModernCorrelator) return { ...discoverRequest(''), id: QUESTION_ID };
  return { jsonrpc: '2.0', id: QUESTION_ID, method: 'ping' };
}

export class Upstreams {
  readonly #host: ServerHost;
  readonly #log: Log;
  readonly #secrets: Secrets;
  readonly #now: () => number;
  readonly #running = new Map<Peer, Running>();
  readonly #crashes: CrashWatch;

  constructor(options: { host: ServerHost; secrets: Secrets; log: Log; now?: () => number }) {
    this.#host = options.host;
    this.#secrets = options.secrets;
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
    this.#crashes = new CrashWatch({ log: options.log, now: this.#now });
  }

  /**
   * A fresh channel to a server, with nothing said on it yet.
   * @throws MoorageError `machine_failed`, `server_failed`, `overloaded`, `secret_missing`, `secrets_unusable`.
   */
  async connect(definition: ServerDefinition, kind: PeerKind): Promise<Peer> {
    return this.#add(definition, kind, await this.#prepare(definition));
  }

  /** The peer of a process that sleeps in a machine which was recalled. */
  adopt(definition: ProcessDefinition, kind: PeerKind, machine: RunningMachine, process: ServerProcess): Peer {
    const { stream } = process;
    const { redactor, revision: secrets } = this.#secrets.given(definition);
    const open = this.#opener(definition, machine, process, redactor);
    return this.#add(definition, kind, { open, sync: () => this.#sync(definition, machine), stream, secrets });
  }

  /** Whether a process that sleeps is what would be started today, with the same secrets. */
  isCurrent(carried: Carried, definition: ServerDefinition): boolean {
    return carried.deployment === definition.deployment && carried.secrets === this.#secrets.revisionOf(definition);
  }

  /**
   * Ends the channels to servers that `which` names, so that the next use opens new ones; calls in flight are lost. A
   * process that sleeps is woken for it. @returns how many there were.
   */
  async restart(which: (definition: ServerDefinition) => boolean): Promise<number> {
    const ending = [...this.#running].filter(([, { definition }]) => which(definition));
    await Promise.all(
      ending.map(async ([peer]) => {
        if (peer.asleep) await peer.awake().catch(() => undefined);
        await peer.end();
      }),
    );
    return ending.length;
  }

  /** Says what is worth keeping of a peer that has become of use. */
  carries(peer: Peer, carry: () => unknown): void {
    const running = this.#running.get(peer);
    if (running) running.carry = carry;
  }

  /** What is to be kept with the image of a machine: its processes, and what their owners must know of them. */
  carry(machine: string): Carried[] {
    return [...this.#running].flatMap(([peer, { definition, stream, secrets, carry }]) => {
      if (definition.machine !== machine || stream === undefined || carry === undefined) return [];
      return [{ server: definition.name, deployment: definition.deployment, stream, secrets, peer: carry(peer) }];
    });
  }

  /** Says that a peer is in use: idle ones make room. */
  touch(peer: Peer): void {
    const running = this.#running.get(peer);
    if (running) running.lastUsed = this.#now();
  }

  /** Servers that keep dying, or do not answer, for people. */
  troubles(): Trouble[] {
    const now = this.#now();
    const loops = this.#crashes.loops().map(({ name: server, machine, text }): Trouble => {
      return { server, machine, trouble: 'crash loop', text };
    });
    const silent = [...this.#running.values()].flatMap(({ definition, watched }): Trouble[] => {
      const since = watched?.silentSince;
      if (since === undefined) return [];
      const { name: server, machine } = definition;
      return [{ server, machine, trouble: 'no answer', text: `no answer for ${Math.round((now - since) / 1000)} s` }];
    });
    return [...loops, ...silent];
  }

  /** Ends every channel, but leaves alone the processes of machines that go on sleeping. */
  async close(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((peer) => peer.letGo()));
  }

  #add(definition: ServerDefinition, kind: PeerKind, { open, sync, stream, secrets }: Prepared): Peer {
    const { carry, ...options } = kind;
    let watched: WatchedChannel | undefined;
    const openWatched: OpenChannel = (events) => {
      const silent = (forMs: number, calls: number) => this.#silent(definition, peer, forMs, calls);
      const question = questionOf(kind.correlator);
      watched = new WatchedChannel(open, { question, silent, now: this.#now }, events);
      return watched;
    };
    const isProcess = isProcessDefinition(definition);
    const peer: Peer = new Peer({
      ...options,
      server: definition.name,
      open: isProcess ? openWatched : open,
      sync,
      log: this.#log,
    });
    this.#running.set(peer, {
      watched,
      definition,
      stream,
      secrets,
      carry,
      lastUsed: this.#now(),
    });
    void peer.closed.then(() => this.#running.delete(peer));
    return peer;
  }

  async #prepare(definition: ServerDefinition): Promise<Prepared> {
    const log = this.#log;
    const server = definition.name;
    // Before a machine is booted for nothing.
    const given = this.#secrets.given(definition);
    const { headers, redactor, revision: secrets } = given;
    if (isHttpDefinition(definition)) {
      await this.#makeRoom(definition.machine);
      const { url, transport } = definition.entry;
      return {
        open: (events) => new HttpChannel({ server, url, headers, transport, log }, redacted(events, redactor)),
        sync: () => Promise.resolve(),
        secrets,
      };
    }
    if (!isProcessDefinition(definition)) throw new TypeError('A server is a process or an address.');
    // Before its machine is woken for nothing.
    this.#crashes.refuseLoop(definition);
    const lease = await this.#host.lease(definition);
    try {
      const { machine } = lease;
      await this.#makeRoom(definition.machine);
      const process = await this.#start(definition, machine, given);
      const open = this.#opener(definition, machine, process, redactor);
      return { open, sync: () => this.#sync(definition, machine), stream: process.stream, secrets };
    } finally {
      // Whoever asked for the channel speaks on it at once: a machine does not fall asleep within a turn.
      lease.release();
    }
  }

  #opener(
    definition: ProcessDefinition,
    machine: RunningMachine,
    process: ServerProcess,
    redactor: Redactor,
  ): OpenChannel {
    const { name: server } = definition;
    const crashed = this.#crashes.started(definition, machine);
    const open: OpenChannel = (events) =>
      new StdioChannel(
        { server, machine: definition.machine, process, log: this.#log, redactor, crashed },
        redacted(events, redactor),
      );
    if (machine.sleep === undefined) return open;
    const keeper: Keeper = {
      lease: async () => {
        const lease = await this.#host.lease(definition);
        if (lease.machine === machine) return lease;
        lease.release();
        throw new MoorageError('session_unknown', 'The machine lost this process while it slept.');
      },
      leaseNow: () => this.#host.leaseNow(definition, machine),
      whenAwake: (act) => this.#host.whenAwake(definition, act),
    };
    return (events) => new WakingChannel(open, keeper, events);
  }

  #silent({ name, machine, entry }: ServerDefinition, peer: Peer, forMs: number, calls: number): void {
    const restarts = 'health' in entry && entry.health === 'restart';
    const waiting = calls === 1 ? '1 call waits' : `${calls} calls wait`;
    const text = `no answer for ${Math.round(forMs / 1000)} s while ${waiting}${restarts ? '; its process is ended' : ''}`;
    this.#log.warn(`server ${name} in machine ${machine}: ${text}`);
    this.#log.server(name, machine, `(moorage) ${text}`);
    if (restarts) void peer.end();
  }

  /** The machine stays awake until its disk is written, also when the call that wants it was the last. */
  async #sync(definition: ProcessDefinition, machine: RunningMachine): Promise<void> {
    const lease = this.#host.leaseNow(definition, machine);
    let useful = false;
    try {
      await machine.sync();
      useful = true;
    } finally {
      lease?.release(useful);
    }
  }

  async #start(definition: ProcessDefinition, machine: RunningMachine, { env }: Given): Promise<ServerProcess> {
    try {
      return await this.#host.start(definition, machine, env);
    } catch (error) {
      if (!(error instanceof MachineError)) throw error;
      this.#log.warn(`server ${definition.name}: ${error.message}${error.detail ? `\n${error.detail}` : ''}`);
      if (error.code === 'spawn-failed')
        this.#crashes.died(definition, { livedMs: 0, wasOfUse: false, how: 'could not be started' });
      throw new MoorageError(
        'server_failed',
        `The server "${definition.name}" could not be started (${error.code}). Its owner finds the reason in the origin's log.`,
      );
    }
  }

  /** Ends the longest idle channel of a full machine. @throws MoorageError `overloaded` when all are busy. */
  async #makeRoom(machine: string): Promise<void> {
    const here = [...this.#running].filter(([, running]) => running.definition.machine === machine);
    if (here.length < MAX_PROCESSES) return;
    const idle = here.filter(([peer]) => peer.inFlight === 0).sort((a, b) => a[1].lastUsed - b[1].lastUsed);
    const victim = idle[0];
    if (!victim) {
      throw new MoorageError(
        'overloaded',
        `Machine "${machine}" runs ${MAX_PROCESSES} busy server processes. Try again later.`,
      );
    }
    this.#log.info(`machine ${machine}: an idle server process was ended to make room`);
    await victim[0].end();
  }
}

/** Keeps what a server was given out of what it says. */
function redacted(events: ChannelEvents, redactor: Redactor): ChannelEvents {
  if (redactor.isEmpty) return events;
  return {
    message: (message, via) => events.message(redactor.message(message), via),
    lost: (id, error) => events.lost(id, error),
  };
}
