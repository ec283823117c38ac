/**
 * Owns people's processes in machines: a terminal or a command of the owner, or of somebody who came by SSH, beside the
 * server that lives there. It starts as the server does (its folder, environment and root), with another command.
 *
 * States of a visit: open -> left. From its start until `leave` it holds a lease, so a machine does not fall asleep under a
 * shell, however long nobody types. Leaving hangs up what still runs (SIGHUP), as a line that is cut.
 */

import { MoorageError } from '../../shared/errors.ts';
import type { Machines } from '../machines.ts';
import type { ServerDefinition } from '../server.ts';
import type { ServerProcess, TerminalSize } from '../vm/driver.ts';
import { MachineError } from '../vm/error.ts';
import { Entrances } from './entrances.ts';

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
  readonly #entrances: Entrances;
  readonly #open = new Map<string, number>();

  /** `servers`, by their names, may come and go. */
  constructor(options: { machines: Machines; servers: ReadonlyMap<string, ServerDefinition> }) {
    this.#machines = options.machines;
    this.#entrances = new Entrances(options);
  }

  /**
   * Boots or wakes the machine of `server` and starts a process there. A machine of a single caller is named by its key.
   * @throws MoorageError `unknown_server`, `no_machine`, `overloaded`, `machine_failed`, `server_failed` (it does not start).
   */
  async begin(server: string, wish: Wish): Promise<Visit> {
    const definition = this.#entrances.of(server);
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
    return this.#entrances.has(server);
  }
}
