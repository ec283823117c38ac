/**
 * Owns which eras a deployment's server speaks: asked once, with `server/discover` on a channel of its own, and kept in
 * memory for as long as the agent runs (2026-07-28, basic/versioning, "Backward Compatibility").
 *
 * A server built before 2026-07-28 may answer the probe with any error, hang, or die of it. None of that touches a
 * session: the probe's channel is ended, and `initialize` goes to a fresh one. A server that cannot be reached at all is
 * no verdict.
 *
 * Silence is an old server's, unless its process has not even begun to read: a `ping` after the probe, which servers of any era
 * answer in some way, shows when it has.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcRequest, JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { isRecord, META, MODERN_REVISIONS } from '../../shared/rev-2026-07-28.ts';
import { MODERN_REVISION } from '../../shared/revision.ts';
import type { Log } from '../log.ts';
import { isHttpDefinition, type ServerDefinition } from '../server.ts';
import { ModernCorrelator } from './correlate-modern.ts';
import type { Peer } from './peer.ts';
import type { Upstreams } from './upstreams.ts';

export type Era = 'modern' | 'legacy';

/** How long a server that reads may take to answer the probe, in milliseconds. */
const PROBE_WITHIN_MS = 10_000;
/** How long a process may take until it reads, in milliseconds: a loaded host starts it slowly. */
const START_WITHIN_MS = 30_000;
/** How long silence or a sudden end counts as a verdict, in milliseconds: the machine may just have had a bad moment. */
const GUESS_HOLDS_MS = 600_000;
const PROBE = 'probe';
/** Codes by which a server says that it has no `initialize` at all (2026-07-28, basic/versioning, "Compatibility Matrix"). */
const REFUSES_SESSIONS: ReadonlySet<number> = new Set([-32022, -32601]);

interface Verdict {
  readonly era: Promise<Era>;
  /** Once it is known. */
  known?: Era;
  /** When it is asked again. */
  until: number;
}

/** A channel on which the probe was answered. */
export interface Probed {
  readonly peer: Peer;
  readonly correlator: ModernCorrelator;
}

export class Eras {
  readonly #upstreams: Upstreams;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #verdicts = new Map<string, Verdict>();
  /** By deployment and machine: a verdict holds for all machines, a channel leads to one. */
  readonly #probed = new Map<string, Probed>();
  /** Whether a deployment takes `initialize`, once it showed. */
  readonly #sessions = new Map<string, boolean>();

  constructor(options: { upstreams: Upstreams; log: Log; now?: () => number }) {
    this.#upstreams = options.upstreams;
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
  }

  /** The newest era that the server speaks. @throws MoorageError when it cannot be reached or started. */
  of(definition: ServerDefinition): Promise<Era> {
    const known = this.#verdicts.get(definition.deployment);
    if (known && this.#now() < known.until) return known.era;
    const verdict: Verdict = { era: this.#probe(definition), until: Number.POSITIVE_INFINITY };
    this.#verdicts.set(definition.deployment, verdict);
    verdict.era.then(
      (era) => {
        verdict.known = era;
      },
      () => {
        if (this.#verdicts.get(definition.deployment) === verdict) this.#verdicts.delete(definition.deployment);
      },
    );
    return verdict.era;
  }

  /** As `of`, where that is known already. */
  known(definition: ServerDefinition): Era | undefined {
    return this.#verdicts.get(definition.deployment)?.known;
  }

  /** Whether the server is known to refuse `initialize`. */
  isModernOnly(definition: ServerDefinition): boolean {
    return this.#sessions.get(definition.deployment) === false;
  }

  acceptedInitialize(definition: ServerDefinition): void {
    this.#sessions.set(definition.deployment, true);
  }

  /** After a refused `initialize`: whether the server refused it because it speaks only the era without sessions. */
  async refusedInitialize(definition: ServerDefinition, code: number): Promise<boolean> {
    if (this.#sessions.get(definition.deployment)) return false;
    const known = this.#verdicts.get(definition.deployment);
    if (known && known.until !== Number.POSITIVE_INFINITY) this.#verdicts.delete(definition.deployment);
    if ((await this.of(definition)) !== 'modern') return false;
    // Any other code may have been about this `initialize` alone.
    if (REFUSES_SESSIONS.has(code)) this.#sessions.set(definition.deployment, false);
    return true;
  }

  /** The channel on which the probe was answered, usable for requests; once. */
  takeProbed(definition: ServerDefinition): Probed | undefined {
    const probed = this.#probed.get(placeOf(definition));
    this.#probed.delete(placeOf(definition));
    return probed;
  }

  /** The verdict of an earlier life of ours, on a process that is still there. */
  learned(definition: ServerDefinition, era: Era): void {
    this.#verdicts.set(definition.deployment, {
      era: Promise.resolve(era),
      known: era,
      until: Number.POSITIVE_INFINITY,
    });
  }

  async #probe(definition: ServerDefinition): Promise<Era> {
    const correlator = new ModernCorrelator();
    const peer = await this.#upstreams.connect(definition, {
      mode: 'shared',
      correlator,
      unasked: () => undefined,
    });
    let era: Era;
    try {
      const answer = await answerOf(peer, isHttpDefinition(definition));
      if (answer === undefined && isHttpDefinition(definition)) throw silentServer(definition.name);
      era = answer === undefined ? this.#guess(definition) : eraOfAnswer(answer);
    } catch (error) {
      // A process that dies of the probe is an old one; a connection that fails says nothing.
      const refused = error instanceof MoorageError && isRefusal(error.data.status);
      if (!refused && (isHttpDefinition(definition) || !(error instanceof MoorageError))) {
        void peer.end();
        throw error;
      }
      era = refused ? 'legacy' : this.#guess(definition);
    }
    this.#log.debug(`server ${definition.name} speaks the ${era} era`);
    if (era === 'legacy') void peer.end();
    else {
      const probed = { peer, correlator };
      this.#probed.set(placeOf(definition), probed);
      void peer.closed.then(() => {
        if (this.#probed.get(placeOf(definition)) === probed) this.#probed.delete(placeOf(definition));
      });
    }
    return era;
  }

  /** Nothing was said: an old server, most likely. */
  #guess(definition: ServerDefinition): Era {
    const verdict = this.#verdicts.get(definition.deployment);
    if (verdict) verdict.until = this.#now() + GUESS_HOLDS_MS;
    return 'legacy';
  }
}

/** What is said to the probe; undefined after a silence. @throws MoorageError when the channel ends. */
async function answerOf(peer: Peer, isThere: boolean): Promise<JsonRpcResponse | undefined> {
  const late = new AbortController();
  const silent = Promise.withResolvers<undefined>();
  const waitFor = (ms: number) => setTimeout(() => silent.resolve(undefined), ms).unref();
  let timer = waitFor(isThere ? PROBE_WITHIN_MS : START_WITHIN_MS);
  const reads = () => {
    if (late.signal.aborted) return;
    clearTimeout(timer);
    timer = waitFor(PROBE_WITHIN_MS);
  };
  const asked = peer.ask(PROBE, discoverRequest(PROBE), { signal: late.signal });
  if (!isThere) peer.ask(PROBE, pingRequest(PROBE), { signal: late.signal }).then(reads, () => undefined);
  try {
    return await Promise.race([asked, silent.promise]);
  } finally {
    clearTimeout(timer);
    late.abort();
  }
}

const placeOf = ({ deployment, machine }: ServerDefinition): string => `${deployment} ${machine}`;

/** HTTP statuses by which a server refuses a message that it does not know. Others are about access or load. */
const isRefusal = (status: unknown): boolean =>
  typeof status === 'number' && status >= 400 && status <= 499 && ![401, 403, 407, 408, 429].includes(status);

const silentServer = (server: string): MoorageError =>
  new MoorageError('server_failed', `The server "${server}" did not answer within ${PROBE_WITHIN_MS / 1000} seconds.`);

/** What an answer to the probe shows. Anything that is not certainly modern is legacy (basic/transports/stdio). */
export function eraOfAnswer(answer: JsonRpcResponse): Era {
  const listed = 'result' in answer ? answer.result.supportedVersions : supportedIn(answer.error);
  return Array.isArray(listed) && listed.some((revision) => MODERN_REVISIONS.includes(revision)) ? 'modern' : 'legacy';
}

function supportedIn(error: { code: number; data?: unknown }): unknown {
  return error.code === -32022 && isRecord(error.data) ? error.data.supported : undefined;
}

/** `server/discover` of the router itself, which can be asked nothing. */
export function discoverRequest(id: string, meta: Readonly<Record<string, unknown>> = {}): JsonRpcRequest {
  return ownRequest(id, 'server/discover', meta);
}

/** As it is written in the newest era, which has no `ping`: an older one takes it as its own. */
const pingRequest = (id: string): JsonRpcRequest => ownRequest(id, 'ping', {});

function ownRequest(id: string, method: string, meta: Readonly<Record<string, unknown>>): JsonRpcRequest {
  return {
    jsonrpc: '2.0',
    id,
    method,
    params: {
      _meta: {
        [META.revision]: MODERN_REVISION,
        [META.clientInfo]: { name: 'moorage', version: '1' },
        [META.clientCapabilities]: {},
        ...meta,
      },
    },
  };
}
