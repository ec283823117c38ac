/** Owns which machine the owner means by a name: a server's, or one of a single caller by its key. */
import { isolationOf } from '../../shared/config/entry.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { Machines } from '../machines.ts';
import { homeOf, placedAt } from '../places.ts';
import { isProcessDefinition, type ProcessDefinition, principalOf, type ServerDefinition } from '../server.ts';

export class Entrances {
  readonly #machines: Machines;
  readonly #servers: ReadonlyMap<string, ServerDefinition>;

  /** `servers`, by their names, may come and go. */
  constructor(options: { machines: Machines; servers: ReadonlyMap<string, ServerDefinition> }) {
    this.#machines = options.machines;
    this.#servers = options.servers;
  }

  /** With `principal` the machine that this one has of a server. @throws MoorageError `unknown_server`, `no_machine`. */
  of(name: string, principal?: string): ProcessDefinition {
    const server = this.#servers.get(name);
    const definition = principal === undefined ? (server ?? this.#own(name)) : server && this.#ownOf(server, principal);
    if (!definition)
      throw new MoorageError(
        'unknown_server',
        `No machine here has a server "${name}". "moorage machines" lists the machines.`,
      );
    const hindrance = this.#hindrance(definition);
    if (hindrance === undefined && isProcessDefinition(definition)) return definition;
    throw new MoorageError('no_machine', `"${name}" has no machine here: ${hindrance}.`);
  }

  /** Whether there is a server of this name whose machine others than the owner may enter: it is no single principal's. */
  has(server: string): boolean {
    const definition = this.#servers.get(server);
    if (definition === undefined || principalOf(definition) !== undefined) return false;
    return this.#hindrance(definition) === undefined;
  }

  /** The server as it is in the one machine that this principal has of it. */
  #ownOf(server: ServerDefinition, principal: string): ServerDefinition {
    const theirs = this.#machines.states().filter(({ owner, machine, forkOf }) => {
      return owner === principal && machine === server.machine && forkOf === undefined;
    });
    const [key, ...more] = theirs.map((one) => one.key);
    const own = key === undefined ? undefined : this.#machines.ownOf(key);
    const who = `"${principal}" has`;
    if (key === undefined || !own) {
      throw new MoorageError('no_machine', `${who} no machine of "${server.name}" here. See "moorage machines".`);
    }
    if (more.length === 0) return placedAt(server, { key, own });
    const keys = [key, ...more].join(', ');
    throw new MoorageError('no_machine', `${who} several machines of "${server.name}". Name one of them: ${keys}`);
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
