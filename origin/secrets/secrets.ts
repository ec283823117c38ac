/**
 * Owns what secrets a server gets and what is then kept out of everything that it prints.
 *
 * Looked up anew for every process that starts: one that runs keeps what it got. Whatever was given stays known here for
 * as long as the agent runs, so that no log line tells it, whoever writes that line (a machine's console, a name that
 * a program looked up).
 */
import { createHash } from 'node:crypto';
import { secretsIn, withSecrets } from '../../shared/config/secrets.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { Log } from '../log.ts';
import { isHttpDefinition, isProcessDefinition, principalOf, type ServerDefinition } from '../server.ts';
import { Redactor } from './redact.ts';
import type { SecretStore, SecretValue } from './store.ts';

/** What one process, or one connection to a server over HTTP, gets. */
export interface Given {
  /** Variables for the process. */
  readonly env: Readonly<Record<string, string>>;
  /** Headers for the connection, complete. */
  readonly headers: Readonly<Record<string, string>>;
  readonly redactor: Redactor;
  /** Names the values without telling them: equal for equal ones. '' for none. */
  readonly revision: string;
}

/** Redactors that are remembered for log lines, at most; the oldest go first. */
const MAX_REDACTORS = 1_000;
const NONE = new Redactor([]);

export class Secrets {
  readonly #store: Pick<SecretStore, 'find'>;
  readonly #redactors = new Map<string, Redactor>();

  constructor(store: Pick<SecretStore, 'find'>) {
    this.#store = store;
  }

  /** @throws MoorageError `secret_missing` naming the command that sets it, `secrets_unusable`. */
  given(definition: ServerDefinition): Given {
    const names = secretsOf(definition);
    const headers = isHttpDefinition(definition) ? definition.entry.headers : {};
    if (names.length === 0) return { env: {}, headers, redactor: NONE, revision: '' };
    const values = new Map(names.map((name) => [name, this.#find(name, definition)]));
    const lookup = (name: string) => values.get(name)?.value ?? '';
    const revision = createHash('sha256')
      .update(JSON.stringify([...values].map(([name, value]) => [name, value.revision])))
      .digest('base64url');
    return {
      env: Object.fromEntries(variablesOf(definition).map(({ env, secret }) => [env, lookup(secret)])),
      headers: Object.fromEntries(
        Object.entries(headers).map(([header, text]) => [header, headerValue(header, withSecrets(text, lookup))]),
      ),
      redactor: this.#redactorOf(revision, values),
      revision,
    };
  }

  /** As `given`, of what a server would get now; undefined where it would get nothing that it can start with. */
  revisionOf(definition: ServerDefinition): string | undefined {
    try {
      return this.given(definition).revision;
    } catch (error) {
      if (error instanceof MoorageError) return undefined;
      throw error;
    }
  }

  /** What is amiss before anybody calls, of servers that all callers share. */
  problems(definitions: readonly ServerDefinition[]): string[] {
    return definitions.flatMap((definition) => {
      const { isolation = 'server' } = definition.entry as { isolation?: string };
      if (isolation !== 'server') return [];
      try {
        this.given(definition);
        return [];
      } catch (error) {
        if (error instanceof MoorageError) return [error.message];
        throw error;
      }
    });
  }

  /** The log with every value that was given kept out of its lines. */
  keptOutOf(log: Log): Log {
    const clean = (text: string) => [...this.#redactors.values()].reduce((line, one) => one.text(line), text);
    return {
      debug: (text) => log.debug(clean(text)),
      info: (text) => log.info(clean(text)),
      warn: (text) => log.warn(clean(text)),
      error: (text) => log.error(clean(text)),
      server: (name, machine, line) => log.server(name, machine, clean(line)),
      machine: (key, line) => log.machine(key, clean(line)),
    };
  }

  #find(name: string, definition: ServerDefinition): SecretValue {
    const { name: server, fork } = definition;
    const principal = principalOf(definition);
    const found = this.#store.find(name, server, principal, fork?.server);
    if (found) return found;
    const forOne = principal === undefined ? '' : ` (for this principal alone: --principal '${principal}')`;
    throw new MoorageError(
      'secret_missing',
      `The server "${server}" needs the secret ${name}, which is not set. Its owner sets it with: moorage secret set ${name}${forOne}`,
      { secret: name },
    );
  }

  #redactorOf(revision: string, values: ReadonlyMap<string, SecretValue>): Redactor {
    const known = this.#redactors.get(revision);
    if (known) return known;
    const redactor = new Redactor([...values].map(([name, { value }]) => ({ name, value })));
    this.#redactors.set(revision, redactor);
    for (const oldest of this.#redactors.keys()) {
      if (this.#redactors.size <= MAX_REDACTORS) break;
      this.#redactors.delete(oldest);
    }
    return redactor;
  }
}

/** Names of the secrets that a server needs, each once. */
export function secretsOf(definition: ServerDefinition): string[] {
  const names = isHttpDefinition(definition)
    ? Object.values(definition.entry.headers).flatMap(secretsIn)
    : variablesOf(definition).map(({ secret }) => secret);
  return [...new Set(names)];
}

const variablesOf = (definition: ServerDefinition) =>
  isProcessDefinition(definition) ? (definition.entry.secrets ?? []) : [];

/** As the configuration checks headers that hold no secret. */
function headerValue(header: string, value: string): string {
  if (/^[\x20-\x7e\t]*$/.test(value)) return value;
  throw new MoorageError(
    'secrets_unusable',
    `A secret in the header "${header}" holds what a header cannot: line breaks, or characters beyond ASCII. Set it anew.`,
  );
}
