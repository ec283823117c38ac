/**
 * Owns the channels to servers: opens them, whatever carries them, and bounds how many there are.
 *
 * Invariants: at most `MAX_PROCESSES` per machine (connections to a server over HTTP count alike): the longest idle one is
 * ended for a new one; after `close` nothing is left running.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';
import { isHttpDefinition, isProcessDefinition, type ProcessDefinition, type ServerDefinition } from '../server.ts';
import type { RunningMachine, ServerProcess } from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';
import type { OpenChannel } from './channel.ts';
import type { Correlates } from './correlate.ts';
import { HttpChannel } from './http-channel.ts';
import { Peer, type PeerOptions } from './peer.ts';
import { StdioChannel } from './stdio-channel.ts';

/** How a server is started in its machine, and the machine itself, which boots when it must. */
export interface ServerHost {
  /** @throws MoorageError when the machine cannot run. */
  machine(definition: ProcessDefinition): Promise<RunningMachine>;
  /** @throws MachineError when the process cannot be started. */
  start(definition: ProcessDefinition, machine: RunningMachine): Promise<ServerProcess>;
}

/** What the caller decides about a new peer. */
export interface PeerKind {
  readonly mode: 'own' | 'shared';
  readonly correlator: Correlates;
  readonly unasked: PeerOptions['unasked'];
}

interface Running {
  readonly machine: string;
  lastUsed: number;
}

/** Server processes in one machine, or connections to one server, at most. */
const MAX_PROCESSES = 64;

export class Upstreams {
  readonly #host: ServerHost;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #running = new Map<Peer, Running>();

  constructor(options: { host: ServerHost; log: Log; now?: () => number }) {
    this.#host = options.host;
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
  }

  /**
   * A fresh channel to a server, with nothing said on it yet.
   * @throws MoorageError `machine_failed`, `server_failed`, `overloaded`.
   */
  async connect(definition: ServerDefinition, kind: PeerKind): Promise<Peer> {
    const { open, sync } = await this.#prepare(definition);
    const peer = new Peer({ ...kind, server: definition.name, open, sync, log: this.#log });
    this.#running.set(peer, { machine: definition.machine, lastUsed: this.#now() });
    void peer.closed.then(() => this.#running.delete(peer));
    return peer;
  }

  /** Says that a peer is in use: idle ones make room. */
  touch(peer: Peer): void {
    const running = this.#running.get(peer);
    if (running) running.lastUsed = this.#now();
  }

  /** Ends every channel. */
  async close(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((peer) => peer.end()));
  }

  async #prepare(definition: ServerDefinition): Promise<{ open: OpenChannel; sync: () => Promise<void> }> {
    const log = this.#log;
    const server = definition.name;
    if (isHttpDefinition(definition)) {
      await this.#makeRoom(definition.machine);
      const { url, headers, transport } = definition.entry;
      return {
        open: (events) => new HttpChannel({ server, url, headers, transport, log }, events),
        sync: () => Promise.resolve(),
      };
    }
    if (!isProcessDefinition(definition)) throw new TypeError('A server is a process or an address.');
    const machine = await this.#host.machine(definition);
    await this.#makeRoom(definition.machine);
    const process = await this.#start(definition, machine);
    return { open: (events) => new StdioChannel({ server, process, log }, events), sync: () => machine.sync() };
  }

  async #start(definition: ProcessDefinition, machine: RunningMachine): Promise<ServerProcess> {
    try {
      return await this.#host.start(definition, machine);
    } catch (error) {
      if (!(error instanceof MachineError)) throw error;
      this.#log.warn(`server ${definition.name}: ${error.message}${error.detail ? `\n${error.detail}` : ''}`);
      throw new MoorageError(
        'server_failed',
        `The server "${definition.name}" could not be started (${error.code}). Its owner finds the reason in the origin's log.`,
      );
    }
  }

  /** Ends the longest idle channel of a full machine. @throws MoorageError `overloaded` when all are busy. */
  async #makeRoom(machine: string): Promise<void> {
    const here = [...this.#running].filter(([, running]) => running.machine === machine);
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
