/**
 * Owns the part of a listen that only the server's process can tell: which resources were updated. It is asked for at the
 * origin without waking anything (`Moorage-Wake: no`): a process that does not run tells nothing, and hears of the
 * subscription when somebody's request reaches it next.
 *
 * What ends there (a process that died, an agent that was started anew) is asked for again, with growing pauses, for as long as
 * the client listens: its stream goes on.
 */
import { MoorageError } from '../../shared/errors.ts';
import { isResponse, type JsonRpcFailure, type JsonRpcMessage, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { ERA_HEADER, WAKE_HEADER } from '../../shared/origin-api.ts';
import { changedKindOf } from '../discovery/question.ts';
import { messagesIn } from '../events-of.ts';
import { type LaneAdmission, laneOf } from '../lane/object.ts';
import { Broken, postMessage } from '../origin/client.ts';
import { unwrap } from '../outcome.ts';
import type { CarriedRequest } from './carry.ts';
import { ACKNOWLEDGED } from './subscription.ts';

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

export interface Updates {
  /** What the server agreed to; all of it where it could not be asked. */
  readonly uris: readonly string[];
  /** Hands on what it says; gives back what ends that. */
  follow(say: (message: JsonRpcMessage) => void): () => void;
}

/** Begins to listen for `uris`, or says by which error the server refuses. @throws MoorageError. */
export async function updatesOf(carried: CarriedRequest, uris: readonly string[]): Promise<Updates | JsonRpcFailure> {
  const ending = new AbortController();
  const signal = AbortSignal.any([carried.signal, ending.signal]);
  const open = () => opened({ ...carried, signal }, uris);
  // An origin that is away has nothing to tell: it is asked when it is back.
  const first = await open().catch((thrown: unknown) => {
    if (thrown instanceof Broken) return undefined;
    throw thrown;
  });
  const said = first && (await first.next());
  if (said && !said.done && isResponse(said.value) && 'error' in said.value) return said.value;
  const follow = (say: (message: JsonRpcMessage) => void) => {
    void followed(first, open, signal, say);
    return () => ending.abort();
  };
  return { uris: (said && !said.done && agreedIn(said.value)) || uris, follow };
}

/** Hands on what each stream says, one after the other. Never throws. */
async function followed(
  first: AsyncGenerator<JsonRpcMessage> | undefined,
  open: () => Promise<AsyncGenerator<JsonRpcMessage>>,
  signal: AbortSignal,
  say: (message: JsonRpcMessage) => void,
): Promise<void> {
  let stream = first;
  for (let pause = FIRST_PAUSE_MS; !signal.aborted; ) {
    const began = Date.now();
    try {
      stream ??= await open();
      for await (const message of stream) {
        if (isResponse(message)) break;
        // Its acknowledgement was ours to give, and lists are the Directory’s to tell.
        const isOurs = 'method' in message && (message.method === ACKNOWLEDGED || changedKindOf(message) !== null);
        if (!isOurs) say(message);
      }
    } catch {
      // Whatever it was, it is over, and the client has not lost its stream by it.
    }
    stream = undefined;
    if (!signal.aborted) await pausing(pause, signal);
    pause = Date.now() - began > 2 * LONGEST_PAUSE_MS ? FIRST_PAUSE_MS : Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

/** The messages of one stream of the origin. @throws MoorageError, Broken. */
async function opened(carried: CarriedRequest, uris: readonly string[]): Promise<AsyncGenerator<JsonRpcMessage>> {
  const { env, holder, signal } = carried;
  const params = { ...carried.request.params, notifications: { resourceSubscriptions: uris } };
  const request: JsonRpcRequest = { ...carried.request, params };
  const bytes = new TextEncoder().encode(JSON.stringify(request));
  const extra = { headers: { [ERA_HEADER]: 'modern', [WAKE_HEADER]: 'no' }, signal };
  for (let stale: string | null = null; ; ) {
    const { route, grant }: LaneAdmission = unwrap(await laneOf(env, holder.id).admit(holder, null, false, stale));
    try {
      return messagesIn(await postMessage(env, route.origin, grant, bytes, false, extra));
    } catch (thrown) {
      if (!(thrown instanceof MoorageError) || thrown.code !== 'route_stale' || stale !== null) throw thrown;
      stale = grant;
    }
  }
}

function agreedIn(message: JsonRpcMessage): readonly string[] | undefined {
  if (!('method' in message) || message.method !== ACKNOWLEDGED) return undefined;
  const { notifications } = (message.params ?? {}) as { notifications?: { resourceSubscriptions?: unknown } };
  const uris = notifications?.resourceSubscriptions;
  return Array.isArray(uris) ? uris.map(String) : [];
}

function pausing(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
