/**
 * Owns people's processes in machines: a terminal or a command of the owner, or of somebody who came by SSH, beside the
 * server that lives there. It starts as the server does (its folder, environment and root), with another command.
 *
 * States of a visit: open -> left. From its start until `leave` it holds a lease, so a machine does not fall asleep under a
 * shell, however long nobody types. Leaving hangs up what still runs (SIGHUP), as a line that is cut.
 */

import { isolationOf } from '../../shared/config.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { Machines } from '../machines.ts';
import { homeOf, placedAt } from '../places.ts';
import { isProcessDefinition, type ProcessDefinition, type ServerDefinition } from '../server.ts';
import type { ServerProcess, TerminalSize } from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';

export interface Wish {
  /** Absent: a login shell. */
  readonly argv?: readonly string[] | undefined;
  /** Beside the server's own environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly terminal?: TerminalSize | undefined;
}

export interface Visit {
  readonly process: ServerProcess;
  /** Must be called once, when the visitor wants nothing more of it. */
  leave(): void;
}

/** Visits of one machine at once: its servers need processes too. */
const MAX_VISITS = 32;

/** bash where the machine's image brings it. */
const LOGIN_SHELL = ['sh', '-c', 'command -v bash >/dev/null && exec bash -l; exec sh -l'];

export class Visits {
  readonly #machines: Machines;
  readonly #servers: ReadonlyMap<string, ServerDefinition>;
  readonly #open = new Map<string, number>();

  /** `servers`, by their names, may come and go. */
  constructor(options: { machines: Machines; servers: ReadonlyMap<string, ServerDefinition> }) {
    this.#machines = options.machines;
    this.#servers = options.servers;
  }

  /**
   * Boots or wakes the machine of `server` and starts a process there. A machine of a single caller is named by its key.
   * @throws MoorageError `unknown_server`, `no_machine`, `overloaded`, `machine_failed`, `server_failed` (it does not start).
   */
  async begin(server: string, wish: Wish): Promise<Visit> {
    const definition = this.#enterable(server);
    const { machine } = definition;
    const others = this.#open.get(machine) ?? 0;
    if (others >= MAX_VISITS) {
      throw new MoorageError('overloaded', `${MAX_VISITS} people are in machine "${machine}". Close a shell first.`);
    }
    this.#open.set(machine, others + 1);
    const undo: (() => void)[] = [() => void this.#open.set(machine, (this.#open.get(machine) ?? 1) - 1)];
    const leave = () => {
      for (const step of undo.splice(0).reverse()) step();
    };
    try {
      const lease = await this.#machines.lease(definition);
      undo.push(() => lease.release());
      const process = await this.#machines.enter(definition, lease.machine, {
        argv: wish.argv ?? LOGIN_SHELL,
        env: wish.env,
        ...(wish.terminal ? { terminal: wish.terminal } : {}),
      });
      undo.push(() => {
        process.kill('SIGHUP');
        for (const stream of [process.stdin, process.stdout, process.stderr]) {
          stream.on('error', () => undefined);
          stream.destroy();
        }
      });
      return { process, leave };
    } catch (error) {
      leave();
      // What does not start is what the visitor asked for: the guest's own words help, and hold nothing of this host.
      if (error instanceof MachineError) throw new MoorageError('server_failed', error.message);
      throw error;
    }
  }

  /** Whether there is a server of this name whose machine can be entered. */
  has(server: string): boolean {
    const definition = this.#servers.get(server);
    return definition !== undefined && this.#hindrance(definition) === undefined;
  }

  #enterable(name: string): ProcessDefinition {
    const definition = this.#servers.get(name) ?? this.#own(name);
    if (!definition) throw new MoorageError('unknown_server', `No machine here has a server "${name}".`);
    const hindrance = this.#hindrance(definition);
    if (hindrance === undefined && isProcessDefinition(definition)) return definition;
    throw new MoorageError('no_machine', `"${name}" has no machine to enter: ${hindrance}.`);
  }

  /** A server that runs in the machine of this key, which is a caller's own. */
  #own(key: string): ServerDefinition | undefined {
    const own = this.#machines.ownOf(key);
    const server = own && [...this.#servers.values()].find(({ machine }) => machine === own.home);
    return server && placedAt(server, { key, own });
  }

  #hindrance(definition: ServerDefinition): string | undefined {
    if (!isProcessDefinition(definition)) return 'it is reached at its own address';
    if (this.#machines.runtimeOf(homeOf(definition)) === 'process') return 'it runs as a plain process on this host';
    const isolation = isolationOf(definition.entry);
    if (isolation === 'server' || definition.own) return undefined;
    return `each ${isolation} has one of its own. Name one of those that "moorage machines" lists`;
  }
}
