/**
 * Makes the connections that one machine's programs want: asks `decide.ts`, resolves the name, dials one of the very
 * addresses that were checked (a second lookup could answer otherwise), and carries the bytes.
 *
 * Bounds: connections by `vm/connections.ts`; a connection that is not made in CONNECT_MS, or says nothing in either
 * direction for IDLE_MS, is reset. An open connection does not keep its machine awake.
 * Every connection, refused name and refused connection is a line in the machine's log (at most LINES_A_MINUTE).
 */
import { Resolver } from 'node:dns/promises';
import { isIPv6, type Socket, connect as tcpConnect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { pipeline } from 'node:stream/promises';
import { type EgressRule, egressRuleText } from '../../shared/config/egress.ts';
import { rateOf } from '../rate.ts';
import type { Egress, GuestConnection } from '../vm/driver.ts';
import { decideTarget, type Target, usableAddresses } from './decide.ts';
import { Throttle } from './throttle.ts';

const CONNECT_MS = 15_000;
const IDLE_MS = 600_000;
const LINES_A_MINUTE = 120;
/** Longest text of the guest in a line of the log. */
const MAX_TEXT = 260;

/** All addresses of a name, both families. Rejects when it has none. */
export type Resolve = (name: string) => Promise<readonly string[]>;

export interface GatewayOptions {
  readonly rules: readonly EgressRule[];
  /** One line of the machine's log. */
  readonly log: (line: string) => void;
  /** Bytes a second that all connections may send together, and as many that they may receive. */
  readonly bytesPerSecond?: number | undefined;
  readonly resolve?: Resolve;
  /** The host's own addresses. */
  readonly own?: () => readonly string[];
  readonly now?: () => number;
}

export class Gateway implements Egress {
  readonly #rules: readonly EgressRule[];
  readonly #options: Required<Omit<GatewayOptions, 'bytesPerSecond'>>;
  readonly #up: Throttle | undefined;
  readonly #down: Throttle | undefined;
  #minute = { began: 0, lines: 0 };
  #last = 0;

  constructor(options: GatewayOptions) {
    this.#rules = options.rules;
    this.#options = { resolve: resolveByDns, own: ownAddresses, now: Date.now, ...options };
    if (options.bytesPerSecond === undefined) return;
    const rate = rateOf(options.bytesPerSecond);
    this.#up = new Throttle(rate, this.#options.now);
    this.#down = new Throttle(rate, this.#options.now);
  }

  get allow(): Egress['allow'] {
    return this.#rules;
  }

  connect(connection: GuestConnection): void {
    void this.#serve(connection);
  }

  overflow(connection: GuestConnection): void {
    this.#refuse(connection, 'the machine has too many connections open');
  }

  note({ why, host, port }: Readonly<Record<string, unknown>>): void {
    if (why === 'unlisted') this.#log(`lookup of ${shown(host)} refused: no entry of "egress" lists this name`);
    else if (why === 'taken')
      this.#log(
        `${shown(host)}:${shown(port)} cannot be reached: a program of the machine listens on that port itself`,
      );
  }

  async #serve(connection: GuestConnection): Promise<void> {
    const target = decideTarget(this.#rules, connection.target.host, connection.target.port);
    if (target.type === 'refused') {
      this.#refuse(connection, target.why);
      return;
    }
    this.#last += 1;
    const label = `connection ${this.#last} to ${egressRuleText({ kind: 'name', host: target.host, port: target.port })}`;
    let socket: Socket;
    try {
      socket = await this.#dial(target, connection.gone);
    } catch (error) {
      this.#log(`${label} failed: ${messageOf(error)}`);
      connection.refuse('it cannot be reached');
      return;
    }
    const began = this.#options.now();
    this.#log(`${label} opened, at ${socket.remoteAddress}`);
    socket.setTimeout(IDLE_MS, () => socket.destroy(new Error(`nothing was said for ${IDLE_MS / 60_000} minutes`)));
    connection.accept();
    let end = 'closed';
    try {
      const { up, down, gone } = connection;
      const way = [up, this.#up?.stream(), socket, this.#down?.stream(), down].filter((piece) => piece !== undefined);
      await pipeline(way, { signal: gone });
    } catch (error) {
      end = connection.gone.aborted ? 'reset by the machine' : `reset: ${messageOf(error)}`;
      connection.reset();
    }
    const seconds = ((this.#options.now() - began) / 1000).toFixed(1);
    this.#log(`${label} ${end}: ${socket.bytesWritten} bytes sent, ${socket.bytesRead} received in ${seconds} s`);
  }

  /** Rejects with an Error whose message is for the owner. */
  async #dial({ host, port, type }: Exclude<Target, { type: 'refused' }>, gone: AbortSignal): Promise<Socket> {
    const deadline = AbortSignal.any([gone, AbortSignal.timeout(CONNECT_MS)]);
    const addresses = type === 'address' ? [host] : await orAborted(this.#usable(host, port), deadline);
    const socket = tcpConnect({
      host,
      port,
      noDelay: true,
      keepAlive: true,
      allowHalfOpen: true,
      autoSelectFamily: true,
      lookup: (_host, _options, done) =>
        done(
          null,
          addresses.map((address) => ({ address, family: isIPv6(address) ? 6 : 4 })),
        ),
    });
    try {
      await orAborted(
        new Promise<void>((resolve, reject) => {
          socket.once('connect', resolve);
          socket.on('error', reject);
        }),
        deadline,
      );
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return socket;
  }

  async #usable(host: string, port: number): Promise<readonly string[]> {
    const resolved = await this.#options.resolve(host);
    const { use, refused } = usableAddresses(this.#rules, port, resolved, this.#options.own());
    if (use.length > 0) return use;
    const what = refused.length > 0 ? `resolves to ${refused.slice(0, 8).join(', ')}` : 'resolves to nothing';
    throw new Error(`it ${what}, which no entry of "egress" lists as an address`);
  }

  #refuse(connection: GuestConnection, why: string): void {
    this.#log(`connection to ${shown(connection.target.host)}:${shown(connection.target.port)} refused: ${why}`);
    connection.refuse(why);
  }

  /** A guest may ask faster than anybody reads. */
  #log(line: string): void {
    const now = this.#options.now();
    if (now - this.#minute.began >= 60_000) {
      const left = this.#minute.lines - LINES_A_MINUTE;
      if (left > 0) this.#options.log(`egress: ${left} more lines were not written`);
      this.#minute = { began: now, lines: 0 };
    }
    this.#minute.lines += 1;
    if (this.#minute.lines <= LINES_A_MINUTE) this.#options.log(`egress: ${line}`);
  }
}

/** By the host's name servers. Not getaddrinfo: it blocks a thread of the agent for as long as a name server likes. */
async function resolveByDns(name: string): Promise<string[]> {
  const resolver = new Resolver({ timeout: 3_000, tries: 2 });
  const [v4, v6] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
  const found = [v4, v6].flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  if (found.length === 0 && v4.status === 'rejected') throw v4.reason;
  return found;
}

const ownAddresses = (): string[] =>
  Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));

async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = () =>
    aborted.reject(new Error(signal.reason?.name === 'TimeoutError' ? 'it did not answer in time' : 'it was given up'));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  work.catch(() => undefined);
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** What the guest says, as one word of a line. */
const shown = (value: unknown): string =>
  String(value)
    .slice(0, MAX_TEXT)
    .replaceAll(/[^\x21-\x7e]/g, '?');
const messageOf = (error: unknown): string =>
  error instanceof AggregateError && error.errors[0] instanceof Error
    ? error.errors[0].message
    : error instanceof Error
      ? error.message
      : String(error);
