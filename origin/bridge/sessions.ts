/**
 * Owns which session uses which server process.
 *
 * A session has its own process when its client can be asked something (it declared sampling, elicitation or roots):
 * over stdio a question cannot be told apart by session, and one user's question must never reach another. Sessions
 * whose clients declared nothing of the kind share one process per server, machine and revision. `process` in the configuration
 * fixes either.
 *
 * Invariants: `open` is idempotent per session, also when called concurrently; a session is bound to one server and
 * machine; a process that ended is forgotten at once, and the next message of its sessions is answered `session_unknown`, which
 * makes the edge open the session again.
 */
import { randomBytes } from 'node:crypto';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcRequest, JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import type { ServerDefinition } from '../server.ts';
import { Correlator, type CorrelatorState } from './correlate.ts';
import type { Eras } from './eras.ts';
import type { ModernPeers } from './modern-peers.ts';
import { asked, Peer, type SessionPeer, type Unasked } from './peer.ts';
import { StatelessSession } from './stateless/session.ts';
import type { PeerKind, Upstreams } from './upstreams.ts';

export interface Attachment {
  readonly peer: SessionPeer;
  /** The server's answer to `initialize`, under the id of the request that opened this session. */
  readonly initialized: JsonRpcResponse;
}

interface Entry {
  readonly server: string;
  readonly machine: string;
  readonly attachment: Promise<Attachment>;
  peer?: SessionPeer;
}

/** Where a session belongs: a server in a machine. */
type Where = Pick<ServerDefinition, 'name' | 'machine'>;

/** What becomes known of a process when it has answered `initialize`. */
interface Started {
  key?: string | undefined;
  initialized?: JsonRpcResponse;
}

interface SharedProcess {
  readonly ready: Promise<{ peer: Peer; initialized: JsonRpcResponse }>;
}

/** What must be known of a process to take it over after a restart of ours. */
interface CarriedSessions {
  readonly of: 'sessions';
  readonly mode: 'own' | 'shared';
  /** Key of a shared process. */
  readonly key: string | undefined;
  readonly initialized: JsonRpcResponse;
  readonly listsChanged: boolean;
  readonly correlator: CorrelatorState;
}

/** Client capabilities by which a server may ask its client something (2025-11-25, basic/lifecycle). */
const ASKING = ['sampling', 'elicitation', 'roots', 'tasks'] as const;

export class Sessions {
  readonly #upstreams: Upstreams;
  readonly #eras: Eras;
  readonly #peers: ModernPeers;
  readonly #unasked: Unasked;
  readonly #entries = new Map<string, Entry>();
  readonly #shared = new Map<string, SharedProcess>();

  constructor(options: {
    upstreams: Upstreams;
    eras: Eras;
    peers: ModernPeers;
    unasked: Unasked;
  }) {
    this.#upstreams = options.upstreams;
    this.#eras = options.eras;
    this.#peers = options.peers;
    this.#unasked = options.unasked;
  }

  get size(): number {
    return this.#entries.size;
  }

  /**
   * The open session's process, able to hear. @throws MoorageError `session_unknown` when there is none (or it sleeps and
   * `wake` is false), or what its opening or waking met.
   */
  async get(session: string, { name, machine }: Where, wake = true): Promise<Attachment> {
    const entry = this.#entries.get(session);
    if (entry?.server !== name || entry.machine !== machine) {
      throw new MoorageError('session_unknown', 'The origin holds no process for this session.');
    }
    const attachment = await entry.attachment;
    if (!wake && attachment.peer.asleep) {
      throw new MoorageError('session_unknown', 'The process of this session sleeps.');
    }
    await attachment.peer.awake?.();
    this.touch(session);
    return attachment;
  }

  /**
   * Opens a session: starts its process (or joins the shared one) and passes `initialize` to it.
   * A session that is open, or being opened, is left as it is. With `replay` the client said `initialized` long ago: it
   * is said again in its name, and the process is asked those requests before anybody else's message passes.
   * @throws MoorageError `machine_failed`, `server_failed`, `overloaded`.
   */
  open(
    session: string,
    definition: ServerDefinition,
    initialize: JsonRpcRequest,
    replay?: readonly JsonRpcRequest[],
  ): Promise<Attachment> {
    const known = this.#entries.get(session);
    if (known) {
      return known.server === definition.name && known.machine === definition.machine
        ? known.attachment
        : Promise.reject(new MoorageError('session_unknown', 'This session belongs to another server.'));
    }
    const attached = this.#attach(session, definition, initialize, replay !== undefined);
    const attachment = replay ? this.#restore(session, definition, attached, replay) : attached;
    const { name: server, machine } = definition;
    const entry: Entry = { server, machine, attachment };
    this.#entries.set(session, entry);
    attachment.then(
      ({ peer }) => {
        entry.peer = peer;
        // Ended while it was opening.
        if (this.#entries.get(session) !== entry) peer.leave(session);
      },
      () => {
        if (this.#entries.get(session) === entry) this.#entries.delete(session);
      },
    );
    return attachment;
  }

  /** Whether a client that declares this would share a process, and one runs. */
  runsShared(definition: ServerDefinition, capabilities: Readonly<Record<string, unknown>>): boolean {
    if (!isShared(definition, capabilities)) return false;
    const here = [...this.#entries.values()].filter(
      ({ server, machine }) => server === definition.name && machine === definition.machine,
    );
    return here.some(({ peer }) => peer instanceof Peer && peer.mode === 'shared' && !peer.asleep);
  }

  /** Says that a session is in use: idle ones make room for others. */
  touch(session: string): void {
    const peer = this.#entries.get(session)?.peer;
    if (peer instanceof Peer) this.#upstreams.touch(peer);
  }

  /** Takes over a process that slept through a restart of ours, with its sessions. False when it is none of ours. */
  adopt(definition: ServerDefinition, carried: unknown, connect: (kind: PeerKind) => Peer): boolean {
    if (!isCarried(carried)) return false;
    const { mode, key, initialized } = carried;
    const correlator = Correlator.from(mode, carried.correlator);
    const known = { key, initialized };
    const kind = { ...this.#kind(mode, correlator, () => known), listsChanged: carried.listsChanged };
    const peer = this.#watched(connect(kind));
    const attachment = Promise.resolve({ peer, initialized });
    const { name: server, machine } = definition;
    for (const session of peer.sessions) this.#entries.set(session, { server, machine, attachment, peer });
    if (key !== undefined) this.#share(key, attachment);
    this.#eras.acceptedInitialize(definition);
    return true;
  }

  /** Ends a session. Its own process is ended; a shared one stays for the others, and for its memory. */
  end(session: string): void {
    const entry = this.#entries.get(session);
    this.#entries.delete(session);
    entry?.peer?.leave(session);
  }

  /**
   * A server that refuses `initialize` because it speaks only the era without sessions gets a session that is kept here.
   */
  async #attach(
    session: string,
    definition: ServerDefinition,
    initialize: JsonRpcRequest,
    replay: boolean,
  ): Promise<Attachment> {
    if (!this.#eras.isModernOnly(definition)) {
      const declared = initialize.params?.capabilities;
      const attachment = isShared(definition, isRecord(declared) ? declared : {})
        ? await this.#join(session, definition, initialize)
        : await this.#own(session, definition, initialize, replay);
      const { initialized } = attachment;
      if (!('error' in initialized)) {
        this.#eras.acceptedInitialize(definition);
        return attachment;
      }
      if (!(await this.#eras.refusedInitialize(definition, initialized.error.code))) return attachment;
    }
    const peer = new StatelessSession({
      session,
      definition,
      initialize,
      peers: this.#peers,
      unasked: (message) => this.#unasked([session], message),
    });
    const initialized = await peer.open();
    if (replay) peer.notify(session, { jsonrpc: '2.0', method: 'notifications/initialized' });
    return { peer, initialized };
  }

  /** Brings a process to where a session stands. What it answers was told to the client before. */
  async #restore(
    session: string,
    definition: ServerDefinition,
    attached: Promise<Attachment>,
    requests: readonly JsonRpcRequest[],
  ): Promise<Attachment> {
    const attachment = await attached;
    if ('error' in attachment.initialized) {
      throw new MoorageError(
        'server_failed',
        `The server "${definition.name}" refuses to be initialized again: ${attachment.initialized.error.message}`,
      );
    }
    for (const request of requests) await asked(attachment.peer, session, request);
    return attachment;
  }

  async #own(
    session: string,
    definition: ServerDefinition,
    initialize: JsonRpcRequest,
    replay: boolean,
  ): Promise<Attachment> {
    const { peer, started } = await this.#start(definition, 'own');
    peer.attach(session);
    const initialized = await this.#initialize(peer, session, definition, initialize);
    started.initialized = initialized;
    if (replay) peer.announceInitialized();
    return { peer, initialized };
  }

  async #join(session: string, definition: ServerDefinition, initialize: JsonRpcRequest): Promise<Attachment> {
    const key = JSON.stringify([definition.name, definition.machine, initialize.params?.protocolVersion]);
    let process = this.#shared.get(key);
    if (!process) {
      process = this.#share(key, this.#startShared(session, definition, initialize, key));
    }
    const { peer, initialized } = await process.ready;
    peer.attach(session);
    return { peer, initialized: { ...initialized, id: initialize.id } };
  }

  /** Makes a process the one that sessions of this key join, until it ends. */
  #share(key: string, ready: SharedProcess['ready']): SharedProcess {
    const process = { ready };
    this.#shared.set(key, process);
    const forget = () => {
      if (this.#shared.get(key) === process) this.#shared.delete(key);
    };
    ready.then(({ peer }) => peer.closed.then(forget), forget);
    return process;
  }

  async #startShared(
    session: string,
    definition: ServerDefinition,
    initialize: JsonRpcRequest,
    key: string,
  ): SharedProcess['ready'] {
    const { peer, started } = await this.#start(definition, 'shared');
    const masked = { ...initialize, params: { ...initialize.params, capabilities: {} } };
    const initialized = await this.#initialize(peer, session, definition, masked);
    started.initialized = initialized;
    started.key = key;
    // Sent once for all: the sessions' own notifications are not passed on (correlate.ts).
    peer.announceInitialized();
    return { peer, initialized };
  }

  async #initialize(
    peer: Peer,
    session: string,
    definition: ServerDefinition,
    initialize: JsonRpcRequest,
  ): Promise<JsonRpcResponse> {
    try {
      const answer = await peer.ask(session, initialize);
      if ('error' in answer) void peer.end();
      return answer;
    } catch (error) {
      if (error instanceof MoorageError && error.code === 'outcome_unknown') {
        throw new MoorageError(
          'server_failed',
          `The server "${definition.name}" ended while it was starting (${String(error.data.signal ?? `exit code ${String(error.data.exitCode)}`)}). Its owner finds its last words in the origin's log.`,
          { exitCode: error.data.exitCode, signal: error.data.signal },
        );
      }
      throw error;
    }
  }

  async #start(definition: ServerDefinition, mode: 'own' | 'shared'): Promise<{ peer: Peer; started: Started }> {
    const correlator = new Correlator(mode, randomBytes(6).toString('base64url'));
    const started: Started = {};
    const peer = await this.#upstreams.connect(
      definition,
      this.#kind(mode, correlator, () => started),
    );
    return { peer: this.#watched(peer), started };
  }

  #kind(mode: 'own' | 'shared', correlator: Correlator, started: () => Started): PeerKind {
    const carry = ({ listsChanged }: Peer): CarriedSessions | undefined => {
      const { key, initialized } = started();
      return initialized && { of: 'sessions', mode, key, initialized, listsChanged, correlator: correlator.state };
    };
    return { mode, correlator, unasked: this.#unasked, carry };
  }

  #watched(peer: Peer): Peer {
    void peer.closed.then(() => this.#forget(peer));
    return peer;
  }

  #forget(peer: Peer): void {
    for (const [session, entry] of this.#entries) {
      if (entry.peer === peer) this.#entries.delete(session);
    }
  }
}

/** Written by us, and kept with a sum: only whose it is must be told. */
const isCarried = (carried: unknown): carried is CarriedSessions => isRecord(carried) && carried.of === 'sessions';

/** Whether a client that declares this shares a process with others. */
export function isShared({ entry }: ServerDefinition, capabilities: Readonly<Record<string, unknown>>): boolean {
  if (entry.process !== 'auto') return entry.process === 'shared';
  return !ASKING.some((name) => name in capabilities);
}
