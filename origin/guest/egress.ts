/**
 * The way out of a machine, which has no network: programs look names up and connect as everywhere, and each connection is
 * carried to the host, which decides, resolves the real name and dials.
 *
 * A resolver on the loopback answers the listed names alone, each with a loopback address of its own (127.64.0.0/10), where
 * we listen on the listed ports; no lookup ever leaves the machine. Listed addresses are made ours on the loopback. Nothing
 * here protects anything: whoever is root in the machine may say what he likes to the host, which asks its own list.
 *
 * Notes to the host: `{why: 'unlisted', host}`, a name that no entry lists was looked up; `{why: 'taken', host, port}`, we
 * cannot listen there, some program of the machine does.
 */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import { promisify } from 'node:util';
import { Connection } from './connection.ts';
import { type Answer, encodeAnswer, parseQuestion, type Question } from './dns.ts';
import type { Gate } from './gate.ts';
import { encodeJson, FRAME, type Frame, OUTGOING } from './mux.ts';
import { type AllowRule, nameAddress, portsOf } from './names.ts';

/** Names that are listened for at once, at most; the longest unasked one makes room. */
const MAX_NAMES = 1_024;
/** Unlisted names that are told to the host, at most: for its owner to read, not to be spoken through. */
const MAX_NOTED = 100;
const LAST_STREAM = 0xffff_ffff;

interface ListenedName {
  readonly address: string;
  readonly servers: readonly Server[];
  readonly ready: Promise<unknown>;
}

export class Egress {
  readonly #gate: Gate;
  readonly #connections = new Map<number, Connection>();
  /** In the order of their last lookup. */
  readonly #names = new Map<string, ListenedName>();
  readonly #noted = new Set<string>();
  #fixed: Server[] = [];
  #allow: readonly AllowRule[] = [];
  #lastStream = OUTGOING - 1;
  #lastName = 0;

  constructor(gate: Gate) {
    this.#gate = gate;
  }

  /** Starts the resolver, which the machine's /etc/resolv.conf names. */
  start(): void {
    const socket = createSocket('udp4');
    socket.on('error', () => this.#note({ why: 'taken', host: '127.0.0.1', port: 53 }));
    socket.on('message', (packet, from) => {
      const question = parseQuestion(packet);
      if (question === undefined) return;
      const send = (answer: Answer) => socket.send(encodeAnswer(question, answer), from.port, from.address);
      this.#answer(question).then(send, () => send('failure'));
    });
    socket.bind(53, '127.0.0.1');
  }

  /** Takes over what the host allows. What was listened for under another list is so no more. */
  async allow(rules: unknown): Promise<void> {
    if (!Array.isArray(rules) || JSON.stringify(rules) === JSON.stringify(this.#allow)) return;
    this.#allow = rules as AllowRule[];
    for (const { servers } of this.#names.values()) for (const server of servers) server.close();
    for (const server of this.#fixed) server.close();
    this.#names.clear();
    this.#noted.clear();
    await this.#listenForAddresses();
  }

  handle(frame: Frame): void {
    // The rest is for a connection that may just have ended: then there is nothing left to do.
    this.#connections.get(frame.stream)?.handle(frame);
  }

  resume(): void {
    for (const connection of this.#connections.values()) connection.resume();
  }

  /** The host's end is a new one, which knows no connection. */
  reset(): void {
    for (const connection of [...this.#connections.values()]) connection.forget();
  }

  async #answer({ name, wantsAddress }: Question): Promise<Answer> {
    const ports = portsOf(this.#allow, name);
    if (ports.length === 0) {
      if (this.#noted.size < MAX_NOTED && !this.#noted.has(name)) this.#note({ why: 'unlisted', host: name });
      this.#noted.add(name);
      return 'unknown-name';
    }
    const listened = this.#names.get(name) ?? this.#listenForName(name, ports);
    this.#names.delete(name);
    this.#names.set(name, listened);
    await listened.ready;
    return wantsAddress ? { address: listened.address } : 'nothing';
  }

  #listenForName(name: string, ports: readonly number[]): ListenedName {
    if (this.#names.size >= MAX_NAMES) {
      const [oldest = '', { servers }] = [...this.#names][0] ?? ['', { servers: [] }];
      for (const server of servers) server.close();
      this.#names.delete(oldest);
    }
    // An address is not given to another name before all others were: programs remember what they looked up.
    this.#lastName += 1;
    const address = nameAddress(this.#lastName);
    const listening = ports.map((port) => this.#listen(address, port, name));
    return {
      address,
      servers: listening.map(({ server }) => server),
      ready: Promise.all(listening.map((l) => l.ready)),
    };
  }

  async #listenForAddresses(): Promise<void> {
    const binds = new Map<string, { host: string; port: number }>();
    for (const { kind, host, port } of this.#allow) {
      if (kind !== 'network') continue;
      if (!host.startsWith('127.') && host !== '::1') await makeLocal(host);
      const bind = !host.includes('/') ? host : host.includes(':') ? '::' : '0.0.0.0';
      binds.set(`${bind} ${port}`, { host: bind, port });
    }
    const listening = [...binds.values()].map(({ host, port }) => this.#listen(host, port));
    this.#fixed = listening.map(({ server }) => server);
    await Promise.all(listening.map(({ ready }) => ready));
  }

  /** Listens for connections to `name`, or, without it, to the address that each is made to. */
  #listen(host: string, port: number, name?: string): { server: Server; ready: Promise<void> } {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.#accept(socket, name ?? socket.localAddress ?? host, port);
    });
    const ready = new Promise<void>((resolve) => {
      server.once('error', () => {
        this.#note({ why: 'taken', host: name ?? host, port });
        resolve();
      });
      server.listen({ host, port, ipv6Only: true }, resolve);
    });
    return { server, ready };
  }

  #accept(socket: Socket, host: string, port: number): void {
    if (this.#lastStream >= LAST_STREAM) {
      socket.resetAndDestroy();
      return;
    }
    this.#lastStream += 1;
    const id = this.#lastStream;
    this.#connections.set(
      id,
      new Connection(id, this.#gate, socket, { host, port }, () => this.#connections.delete(id)),
    );
  }

  #note(note: { why: 'unlisted' | 'taken'; host: string; port?: number }): void {
    this.#gate.send(encodeJson(FRAME.note, 0, note));
  }
}

/** Lets programs connect to an address, or to all of a network, as to this machine's own. */
async function makeLocal(host: string): Promise<void> {
  const family = host.includes(':') ? ['-6'] : [];
  try {
    await promisify(execFile)('ip', [...family, 'route', 'add', 'local', host, 'dev', 'lo']);
  } catch (error) {
    // It is there already, of an earlier list.
    if (!/exists/.test(String(error))) console.error(`moorage agent: no route to ${host}: ${String(error)}`);
  }
}
