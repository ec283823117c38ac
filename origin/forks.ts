/**
 * Owns the forks of this origin's servers: copies of a live machine, each served under a name of its own.
 *
 * A fork is a folder among the machines, with `fork.json` saying what it is a copy of; both appear in one step
 * (`vm/copy.ts`), so that every restart finds the fork whole or not at all. It is configured as the server is whose machine it
 * is a copy of, also by way of other forks, which need not be there any more. One whose server is not configured (any more)
 * is kept and not served; a configured server comes before a fork of its name. A copy of one principal's machine serves that
 * principal alone.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { machineOf } from '../shared/config/entry.ts';
import { serverName } from '../shared/config/name.ts';
import { MoorageError } from '../shared/errors.ts';
import type { CopiedPeers } from './bridge/copied.ts';
import type { Refusal } from './link/link.ts';
import type { Log } from './log.ts';
import type { Machines } from './machines.ts';
import { isProcessDefinition, type ProcessDefinition, principalOf, type ServerDefinition } from './server.ts';
import type { Entrances } from './shell/entrances.ts';
import type { CopyCost } from './vm/driver.ts';
import { MachineError } from './vm/error.ts';

const RECORD = 'fork.json';
const record = z.object({
  server: serverName,
  /** What was copied: a server, a fork, or a single caller's machine by its key. */
  of: z.string(),
  /** The server in the configuration that it is like, where that is not `of`. */
  like: serverName.optional(),
  /** Subject of the principal whose machine was copied. */
  principal: z.string().optional(),
  createdAt: z.iso.datetime(),
});

export type Fork = z.infer<typeof record>;

export interface Wanted {
  /** What is copied: a server, a fork, or a single caller's machine by its key. */
  readonly of: string;
  /** Names the machine of this principal, where `of` has one for each. */
  readonly principal?: string | undefined;
  /** The copy's name. */
  readonly as: string;
  /** Processes that sessions share go on in the copy as they are; else all are started anew. */
  readonly keep: boolean;
}

/** What a copy cost, and what became of the processes that were to go on in it. */
export interface Made extends Fork {
  readonly cost: CopyCost;
  /** Absent when none were to go on. `renewed` are started anew: the copy is given other secrets. */
  readonly processes?: { readonly kept: number; readonly renewed: number };
}

export interface ForksOptions {
  /** What this origin serves, by name; forks are added to it. */
  readonly servers: Map<string, ServerDefinition>;
  readonly machines: Machines;
  /** Finds what is copied. */
  readonly entrances: Pick<Entrances, 'of'>;
  /** Folder of the machines. */
  readonly folder: string;
  /** What the copy's processes are known by (`bridge/copied.ts`). */
  readonly copied: (from: ServerDefinition, to: ProcessDefinition) => CopiedPeers;
  /** Tells the edge; resolves with what it does not take. */
  readonly announce: () => Promise<readonly Refusal[] | undefined>;
  readonly log: Log;
  /** Milliseconds. */
  readonly now: () => number;
}

export class Forks {
  readonly #options: ForksOptions;
  readonly #forks = new Map<string, Fork>();

  /** Finds the forks of earlier lives. */
  constructor(options: ForksOptions) {
    this.#options = options;
    for (const fork of this.#recorded()) {
      this.#forks.set(fork.server, fork);
      const why = options.servers.has(fork.server) ? 'a server of this name is configured' : this.#serve(fork);
      if (why) options.log.warn(`fork "${fork.server}" of "${fork.of}" is not served: ${why}`);
    }
  }

  list(): readonly Fork[] {
    return [...this.#forks.values()];
  }

  /** Copies a machine and serves it as `as`. @throws MoorageError. */
  async create({ of, principal, as: server, keep }: Wanted): Promise<Made> {
    const { servers, machines, entrances, now, announce, copied } = this.#options;
    const parent = entrances.of(of, principal);
    const name = serverName.safeParse(server);
    if (!name.success) throw refused(`"${server}" is no name of a server: ${name.error.issues[0]?.message ?? ''}`);
    if (servers.has(server) || this.#forks.has(server)) throw refused(`There is a server "${server}" already.`);
    const fork = recordOf(server, parent, new Date(now()).toISOString());
    const child = this.#definitionOf(fork);
    if (!child) throw refused(`"${of}" cannot be copied: its server is not configured any more.`);
    if (machines.isKnown(child.machine)) throw refused(`There is a machine "${child.machine}" already.`);
    this.#forks.set(server, fork);
    let peers: CopiedPeers = { carry: [], keep: [], renewed: 0 };
    const copiedNow = () => {
      if (keep) peers = copied(parent, child);
      return peers;
    };
    try {
      const files = { [RECORD]: JSON.stringify(fork) };
      const cost = await machines.fork(parent, child, { files, copied: copiedNow });
      servers.set(server, child);
      await machines.recallFork(child);
      const refusal = (await announce())?.find((each) => each.server === server);
      if (refusal) {
        await this.remove(server);
        throw refused(`The edge does not take a server "${server}": ${refusal.reason}.`);
      }
      const processes = { kept: peers.keep.length, renewed: peers.renewed };
      return { ...fork, cost, ...(keep ? { processes } : {}) };
    } catch (error) {
      if (!servers.has(server)) this.#forks.delete(server);
      if (!(error instanceof MachineError)) throw error;
      this.#options.log.warn(`fork of "${of}": ${error.message}${error.detail ? `\n${error.detail}` : ''}`);
      throw new MoorageError('machine_failed', `"${of}" was not copied (${error.code}): ${error.message}`);
    }
  }

  /** Ends a fork and removes its machine, disk and all. @throws MoorageError `not_found`. */
  async remove(server: string): Promise<void> {
    const { servers, machines, announce } = this.#options;
    const fork = this.#forks.get(server);
    if (!fork) throw new MoorageError('not_found', `There is no fork "${server}". See "moorage fork".`);
    const isServed = servers.get(server)?.fork !== undefined;
    if (isServed) servers.delete(server);
    await machines.remove(machineNameOf(server));
    this.#forks.delete(server);
    if (isServed) await announce();
  }

  /** @returns why it is not served. */
  #serve(fork: Fork): string | undefined {
    const { servers, machines } = this.#options;
    const child = this.#definitionOf(fork);
    if (!child) return `there is no server "${fork.like ?? fork.of}"`;
    if (machines.isKnown(child.machine)) return `there is another machine "${child.machine}"`;
    servers.set(fork.server, child);
    machines.defineFork(child);
    return undefined;
  }

  /** Undefined where the server that it is like is not configured. */
  #definitionOf({ server, of, like = of, principal }: Fork): ProcessDefinition | undefined {
    const original = this.#options.servers.get(like);
    if (!original || original.fork || !isProcessDefinition(original)) return undefined;
    const deployment = createHash('sha256')
      .update(JSON.stringify(['fork', server, original.deployment]))
      .digest('hex')
      .slice(0, 16);
    const fork = {
      of,
      server: original.name,
      home: original.machine,
      ...(principal === undefined ? {} : { principal }),
    };
    // It is one machine, whoever had one of his own before.
    const entry = { ...original.entry, isolation: 'server' as const };
    return { ...original, entry, name: server, machine: machineNameOf(server), deployment, fork };
  }

  /** What is on the disk. */
  #recorded(): Fork[] {
    const { folder } = this.#options;
    return namesIn(folder).flatMap((name) => {
      try {
        const fork = record.safeParse(JSON.parse(readFileSync(join(folder, name, RECORD), 'utf8')));
        return fork.success && machineNameOf(fork.data.server) === name ? [fork.data] : [];
      } catch {
        return [];
      }
    });
  }
}

function recordOf(server: string, parent: ProcessDefinition, createdAt: string): Fork {
  const of = parent.own ? parent.machine : parent.name;
  const like = parent.fork?.server ?? parent.name;
  const principal = principalOf(parent);
  return {
    server,
    of,
    ...(like === of ? {} : { like }),
    ...(principal === undefined ? {} : { principal }),
    createdAt,
  };
}

const refused = (message: string): MoorageError => new MoorageError('invalid_request', message);

/** The machine of a fork is named like a server's own. */
const machineNameOf = (server: string): string =>
  machineOf(server, { runtime: 'vm', command: '-', args: [], env: {}, process: 'auto', limits: {} });

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => !name.startsWith('.'));
  } catch {
    return [];
  }
}
