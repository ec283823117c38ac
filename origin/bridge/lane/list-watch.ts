/**
 * Owns how the edge hears that a server without sessions (2026-07-28) changed a list: such a server tells only those who
 * listen, so each channel that a lane uses has a `subscriptions/listen` of our own.
 *
 * It holds no machine awake and wakes none: it is opened together with a client's request, also when it had ended before,
 * and never by itself. A server that has no subscriptions is not asked again. When a process ends whose lists had changed
 * since it was called, they change once more: the next one lists what a fresh one does.
 */
import { isNotification, type JsonRpcMessage, type JsonRpcRequest } from '../../../shared/jsonrpc.ts';
import type { ChangedLane } from '../../../shared/link.ts';
import { META } from '../../../shared/rev-2026-07-28.ts';
import { MODERN_REVISION } from '../../../shared/revision.ts';
import type { ServerDefinition } from '../../server.ts';
import { LISTEN, WATCHER } from '../correlate-modern.ts';
import type { Arrival } from '../lanes.ts';
import { isListChange, LIST_CHANGES, type Peer } from '../peer.ts';

/** Takes the word that a list changed. `starting`: the server had not been called yet. */
export type ListChanged = (lane: ChangedLane, message: JsonRpcMessage, starting: boolean) => void;

/** What a client declares is kept up to this size, as JSON. */
const MAX_CAPABILITIES = 16 * 1024;

interface Watch {
  /** Whoever used the channel last: what it lists now can be asked in its name. */
  lane: ChangedLane;
  open: boolean;
  refused: boolean;
}

export class ListWatch {
  readonly #changed: ListChanged;
  readonly #watches = new WeakMap<Peer, Watch>();

  constructor(changed: ListChanged) {
    this.#changed = changed;
  }

  /** A lane's request is about to go to this channel. */
  follow(peer: Peer, arrival: Arrival): void {
    const lane = changedLaneOf(arrival);
    const watch = this.#watches.get(peer) ?? (lane && this.#watch(peer, lane, arrival.definition));
    if (!watch) return;
    if (lane) watch.lane = lane;
    if (watch.open || watch.refused) return;
    watch.open = true;
    peer.request(WATCHER, LISTENING, {
      open: true,
      message: (message) => {
        if (isNotification(message) && isListChange(message)) {
          this.#changed(watch.lane, plain(message.method), !peer.listsChanged);
        }
      },
      answer: (answer) => {
        watch.open = false;
        watch.refused = 'error' in answer;
      },
      fail: () => {
        watch.open = false;
      },
    });
  }

  #watch(peer: Peer, lane: ChangedLane, { entry }: ServerDefinition): Watch {
    const watch = { lane, open: false, refused: false };
    this.#watches.set(peer, watch);
    void peer.closed.then(() => {
      if (entry.process === 'session' || !peer.listsChanged) return;
      for (const method of LIST_CHANGES) this.#changed(watch.lane, plain(method), false);
    });
    return watch;
  }
}

/** Whose request it is, as the edge must know it to ask in the same name; undefined where that is not worth keeping. */
export function changedLaneOf({ sender, definition, envelope }: Arrival): ChangedLane | undefined {
  const { capabilities } = envelope;
  if (JSON.stringify(capabilities).length > MAX_CAPABILITIES) return undefined;
  return { id: sender.lane, server: definition.name, principal: sender.principal, capabilities: { ...capabilities } };
}

const plain = (method: string): JsonRpcMessage => ({ jsonrpc: '2.0', method });

const LISTENING: JsonRpcRequest = {
  jsonrpc: '2.0',
  id: 'moorage-watch',
  method: LISTEN,
  params: {
    notifications: { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true },
    _meta: {
      [META.revision]: MODERN_REVISION,
      [META.clientInfo]: { name: 'moorage', version: '1' },
      [META.clientCapabilities]: {},
    },
  },
};
