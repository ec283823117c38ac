/**
 * Owns the channels to servers of the era without sessions: one per server and machine for everybody in it, or one per owner (a lane, a
 * session) with `process: "session"`. What ended is replaced at the next request.
 */
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import type { ServerDefinition } from '../server.ts';
import { ModernCorrelator } from './correlate-modern.ts';
import type { Eras } from './eras.ts';
import type { Peer } from './peer.ts';
import type { PeerKind, Upstreams } from './upstreams.ts';

interface Opening {
  readonly peer: Promise<Peer>;
  /** Once it is. */
  opened?: Peer;
}

export class ModernPeers {
  readonly #upstreams: Upstreams;
  readonly #eras: Eras;
  readonly #peers = new Map<string, Opening>();

  constructor(options: { upstreams: Upstreams; eras: Eras }) {
    this.#upstreams = options.upstreams;
    this.#eras = options.eras;
  }

  /** @throws MoorageError when the server cannot be started or reached. */
  async get(definition: ServerDefinition, owner: string): Promise<Peer> {
    const peer = await this.#opened(definition, owner);
    this.#upstreams.touch(peer);
    return peer;
  }

  /** The channel where there is one. */
  async known(definition: ServerDefinition, owner: string): Promise<Peer | undefined> {
    return await this.#peers.get(keyOf(definition, owner))?.peer;
  }

  /** Whether there is a channel, and what is behind it can hear without being woken. */
  isAwake(definition: ServerDefinition, owner: string): boolean {
    const opened = this.#peers.get(keyOf(definition, owner))?.opened;
    return opened !== undefined && !opened.asleep;
  }

  /** Ends what belongs to one owner alone. */
  async end(definition: ServerDefinition, owner: string): Promise<void> {
    // Of a machine that sleeps it ends when that wakes: nobody need wait.
    if (definition.entry.process === 'session') void (await this.known(definition, owner))?.end();
  }

  /** Takes over a process that slept through a restart of ours. False when it is none of ours. */
  adopt(definition: ServerDefinition, carried: unknown, connect: (kind: PeerKind) => Peer): boolean {
    if (!isRecord(carried) || carried.of !== 'lanes') return false;
    const peer = connect(this.#kind(definition, String(carried.key), new ModernCorrelator(Number(carried.last))));
    this.#keep(String(carried.key), Promise.resolve(peer));
    this.#eras.learned(definition, 'modern');
    return true;
  }

  #opened(definition: ServerDefinition, owner: string): Promise<Peer> {
    const key = keyOf(definition, owner);
    const known = this.#peers.get(key);
    return known?.peer ?? this.#keep(key, this.#open(definition, key));
  }

  #keep(key: string, peer: Promise<Peer>): Promise<Peer> {
    const opening: Opening = { peer };
    this.#peers.set(key, opening);
    const forget = () => {
      if (this.#peers.get(key) === opening) this.#peers.delete(key);
    };
    peer.then((opened) => {
      opening.opened = opened;
      return opened.closed.then(forget);
    }, forget);
    return peer;
  }

  async #open(definition: ServerDefinition, key: string): Promise<Peer> {
    const probed = this.#eras.takeProbed(definition);
    const { correlator } = probed ?? { correlator: new ModernCorrelator() };
    const kind = this.#kind(definition, key, correlator);
    if (!probed) return await this.#upstreams.connect(definition, kind);
    this.#upstreams.carries(probed.peer, kind.carry);
    return probed.peer;
  }

  #kind(definition: ServerDefinition, key: string, correlator: ModernCorrelator) {
    return {
      mode: definition.entry.process === 'session' ? 'own' : 'shared',
      correlator,
      unasked: () => undefined,
      carry: () => ({ of: 'lanes', key, last: correlator.last }),
    } as const satisfies PeerKind;
  }
}

const keyOf = ({ name, machine, entry }: ServerDefinition, owner: string): string =>
  JSON.stringify(entry.process === 'session' ? [name, machine, owner] : [name, machine]);
