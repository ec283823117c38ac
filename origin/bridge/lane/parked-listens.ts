/**
 * Owns every `subscriptions/listen` whose server's process is not there or sleeps. A process that does not run tells nothing, so
 * none is started and no machine woken for it: it is acknowledged at once, and waits until somebody's request reaches the process.
 *
 * States of one: parked, taken (its owner passes it to the server), gone with its client. Bounds: `MAX_OF_LANE`, `MAX_PARKED`.
 */
import { MoorageError } from '../../../shared/errors.ts';
import { META } from '../../../shared/rev-2026-07-28.ts';
import type { ServerDefinition } from '../../server.ts';
import type { Arrival } from '../lanes.ts';
import type { CallSink } from '../peer.ts';

const ACKNOWLEDGED = 'notifications/subscriptions/acknowledged';
const MAX_PARKED = 10_000;
const MAX_OF_LANE = 100;

export interface ParkedListen {
  readonly arrival: Arrival;
  readonly sink: CallSink;
}

export class ParkedListens {
  /** By server and machine. */
  readonly #parked = new Map<string, Set<ParkedListen>>();
  #count = 0;

  /** Acknowledges what is asked for, and keeps it. @throws MoorageError `overloaded`. */
  park(arrival: Arrival, sink: CallSink): void {
    const { definition, message, sender, signal } = arrival;
    if (signal.aborted) return;
    const here = this.#parked.get(keyOf(definition)) ?? new Set();
    const own = [...here].filter((each) => each.arrival.sender.lane === sender.lane);
    if (this.#count >= MAX_PARKED || own.length >= MAX_OF_LANE) {
      throw new MoorageError('overloaded', `At most ${MAX_OF_LANE} subscriptions wait for a server. Close some first.`);
    }
    this.#parked.set(keyOf(definition), here);
    const parked = { arrival, sink: acknowledged(sink) };
    here.add(parked);
    this.#count++;
    signal.addEventListener('abort', () => this.#remove(parked), { once: true });
    const _meta = { [META.subscriptionId]: message.id };
    const notifications = message.params?.notifications ?? {};
    sink.message({ jsonrpc: '2.0', method: ACKNOWLEDGED, params: { notifications, _meta } });
  }

  has(definition: ServerDefinition): boolean {
    return this.#parked.has(keyOf(definition));
  }

  /** Gives away those at a server in a machine of which `which` holds. */
  take(definition: ServerDefinition, which: (arrival: Arrival) => boolean): ParkedListen[] {
    const taken = [...(this.#parked.get(keyOf(definition)) ?? [])].filter(({ arrival }) => which(arrival));
    for (const parked of taken) this.#remove(parked);
    return taken;
  }

  #remove(parked: ParkedListen): void {
    const key = keyOf(parked.arrival.definition);
    const here = this.#parked.get(key);
    if (!here?.delete(parked)) return;
    this.#count--;
    if (here.size === 0) this.#parked.delete(key);
  }
}

const keyOf = ({ name, machine }: ServerDefinition): string => JSON.stringify([name, machine]);

/** The sink of a client that knows already that it is listened to. */
const acknowledged = (sink: CallSink): CallSink => ({
  get open() {
    return sink.open;
  },
  message: (said) => {
    if (!('method' in said) || said.method !== ACKNOWLEDGED) sink.message(said);
  },
  answer: (answer) => sink.answer(answer),
  fail: (error) => sink.fail(error),
});
