/**
 * Owns the channels to servers of the era without sessions: one per server for everybody, or one per owner (a lane, a
 * session) with `process: "session"`. What ended is replaced at the next request.
 */
import type { ServerDefinition } from '../server.ts';
import { ModernCorrelator } from './correlate-modern.ts';
import type { Eras } from './eras.ts';
import type { Peer } from './peer.ts';
import type { Upstreams } from './upstreams.ts';

export class ModernPeers {
  readonly #upstreams: Upstreams;
  readonly #eras: Eras;
  readonly #peers = new Map<string, Promise<Peer>>();

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
    return await this.#peers.get(keyOf(definition, owner));
  }

  /** Ends what belongs to one owner alone. */
  async end(definition: ServerDefinition, owner: string): Promise<void> {
    if (definition.entry.process === 'session') await (await this.known(definition, owner))?.end();
  }

  #opened(definition: ServerDefinition, owner: string): Promise<Peer> {
    const key = keyOf(definition, owner);
    const known = this.#peers.get(key);
    if (known) return known;
    const opening = this.#open(definition);
    this.#peers.set(key, opening);
    const forget = () => {
      if (this.#peers.get(key) === opening) this.#peers.delete(key);
    };
    opening.then((peer) => peer.closed.then(forget), forget);
    return opening;
  }

  async #open(definition: ServerDefinition): Promise<Peer> {
    const probed = this.#eras.takeProbed(definition);
    if (probed) return probed;
    return await this.#upstreams.connect(definition, {
      mode: definition.entry.process === 'session' ? 'own' : 'shared',
      correlator: new ModernCorrelator(),
      unasked: () => undefined,
    });
  }
}

const keyOf = ({ name, entry }: ServerDefinition, owner: string): string =>
  JSON.stringify(entry.process === 'session' ? [name, owner] : [name]);
