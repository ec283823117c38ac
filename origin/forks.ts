/**
 * Owns the forks of this origin's servers: copies of a live machine, each served under a name of its own.
 *
 * A fork is a folder among the machines, with `fork.json` saying what it is a copy of; both appear in one step
 * (`vm/copy.ts`), so that every restart finds the fork whole or not at all. It is configured as its server is. One whose
 * server is not configured (any more) is kept and not served; a configured server comes before a fork of its name.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { isolationOf, machineOf } from '../shared/config/entry.ts';
import { serverName } from '../shared/config/name.ts';
import { MoorageError } from '../shared/errors.ts';
import type { Refusal } from './link/link.ts';
import type { Log } from './log.ts';
import type { Copied, Machines } from './machines.ts';
import { isProcessDefinition, type ProcessDefinition, type ServerDefinition } from './server.ts';
import type { CopyCost } from './vm/driver.ts';
import { MachineError } from './vm/error.ts';

const RECORD = 'fork.json';
const record = z.object({ server: serverName, of: z.string(), createdAt: z.iso.datetime() });

export type Fork = z.infer<typeof record>;

export interface ForksOptions {
  /** What this origin serves, by name; forks are added to it. */
  readonly servers: Map<string, ServerDefinition>;
  readonly machines: Machines;
  /** Folder of the machines. */
  readonly folder: string;
  /** What the copy's processes are known by (`bridge/copied.ts`). */
  readonly copied: (from: ServerDefinition, to: ServerDefinition) => Copied;
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

  /**
   * Copies the machine of server `of` and serves it as `server`. With `keep` its shared processes go on in the copy as they
   * are, else they are started anew. @throws MoorageError.
   */
  async create(of: string, server: string, keep: boolean): Promise<Fork & { readonly cost: CopyCost }> {
    const { servers, machines, now, announce, copied } = this.#options;
    const parent = this.#forkable(of);
    const name = serverName.safeParse(server);
    if (!name.success) throw refused(`"${server}" is no name of a server: ${name.error.issues[0]?.message ?? ''}`);
    if (servers.has(server) || this.#forks.has(server)) throw refused(`There is a server "${server}" already.`);
    const fork: Fork = { server, of, createdAt: new Date(now()).toISOString() };
    const child = definitionOf(fork, parent);
    if (machines.isKnown(child.machine)) throw refused(`There is a machine "${child.machine}" already.`);
    this.#forks.set(server, fork);
    try {
      const files = { [RECORD]: JSON.stringify(fork) };
      const cost = await machines.fork(parent, child, { files, copied: keep ? () => copied(parent, child) : NOTHING });
      servers.set(server, child);
      await machines.recallFork(child);
      const refusal = (await announce())?.find((each) => each.server === server);
      if (refusal) {
        await this.remove(server);
        throw refused(`The edge does not take a server "${server}": ${refusal.reason}.`);
      }
      return { ...fork, cost };
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
    const parent = servers.get(fork.of);
    if (!parent || parent.fork || !isProcessDefinition(parent)) return `there is no server "${fork.of}"`;
    const child = definitionOf(fork, parent);
    if (machines.isKnown(child.machine)) return `there is another machine "${child.machine}"`;
    servers.set(fork.server, child);
    machines.defineFork(child);
    return undefined;
  }

  /** @throws MoorageError for a server that cannot be forked, saying why. */
  #forkable(of: string): ProcessDefinition {
    const { servers, machines } = this.#options;
    const parent = servers.get(of);
    if (!parent) throw new MoorageError('unknown_server', `This origin has no server "${of}".`);
    if (parent.fork) throw refused(`"${of}" is a fork itself: fork "${parent.fork.server}".`);
    if (!isProcessDefinition(parent) || machines.runtimeOf(parent.machine) !== 'vm') {
      throw refused(`"${of}" runs in no microVM: there is no machine to copy.`);
    }
    if (isolationOf(parent.entry) !== 'server') {
      throw refused(
        `"${of}" has a machine for each ${isolationOf(parent.entry)}: a fork would show one's data to all.`,
      );
    }
    return parent;
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

const NOTHING = (): Copied => ({ carry: [], keep: [] });

const refused = (message: string): MoorageError => new MoorageError('invalid_request', message);

/** The machine of a fork is named like a server's own. */
const machineNameOf = (server: string): string =>
  machineOf(server, { runtime: 'vm', command: '-', args: [], env: {}, process: 'auto', limits: {} });

function definitionOf({ server, of }: Fork, parent: ProcessDefinition): ProcessDefinition {
  const deployment = createHash('sha256')
    .update(JSON.stringify(['fork', server, parent.deployment]))
    .digest('hex')
    .slice(0, 16);
  const fork = { server: of, home: parent.machine };
  return { ...parent, name: server, machine: machineNameOf(server), deployment, fork };
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => !name.startsWith('.'));
  } catch {
    return [];
  }
}
