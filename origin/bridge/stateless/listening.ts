/**
 * Owns what a session hears of a server without sessions: one `subscriptions/listen`, replaced when what the session
 * subscribed to changes, opened again when it breaks.
 *
 * States: idle, opening, open (acknowledged), waiting (for the next try), ended. Invariant: the old stream is closed when
 * the new one is acknowledged, so nothing falls between the two.
 */
import { MoorageError } from '../../../shared/errors.ts';
import { isNotification, type JsonRpcMessage, type JsonRpcRequest } from '../../../shared/jsonrpc.ts';
import { isRecord } from '../../../shared/rev-2026-07-28.ts';
import type { CallSink } from '../peer.ts';
import { legacyNotification } from '../to-legacy.ts';

export interface ListeningOptions {
  listen(message: JsonRpcRequest, sink: CallSink, signal: AbortSignal): Promise<void>;
  heard(message: JsonRpcMessage): void;
}

const ACKNOWLEDGED = 'notifications/subscriptions/acknowledged';
const MAX_URIS = 1_000;
const ACKNOWLEDGED_WITHIN_MS = 10_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 60_000;

export class Listening {
  readonly #options: ListeningOptions;
  readonly #uris = new Set<string>();
  #lists: Record<string, boolean> = {};
  #current: AbortController | undefined;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #streams = 0;
  #ended = false;

  constructor(options: ListeningOptions) {
    this.#options = options;
  }

  /** Begins to listen to what a server with these capabilities announces. */
  start(capabilities: Readonly<Record<string, unknown>>): void {
    const announces = (name: string) => isRecord(capabilities[name]) && capabilities[name].listChanged === true;
    const lists = ['tools', 'prompts', 'resources'].filter(announces);
    this.#lists = Object.fromEntries(lists.map((name) => [`${name}ListChanged`, true]));
    if (lists.length > 0) this.#open().catch(() => undefined);
  }

  /** Resolves when the server agreed. @throws MoorageError `invalid_params` when it did not, or what the stream met. */
  async subscribe(uri: string): Promise<void> {
    if (this.#uris.has(uri)) return;
    if (this.#uris.size >= MAX_URIS) {
      throw new MoorageError('overloaded', `A session subscribes to ${MAX_URIS} resources at most.`);
    }
    this.#uris.add(uri);
    const agreed = await this.#open().catch((error: unknown) => {
      this.#uris.delete(uri);
      throw error;
    });
    if (agreed.includes(uri)) return;
    this.#uris.delete(uri);
    throw new MoorageError('invalid_params', 'The server does not say when this resource changes.');
  }

  unsubscribe(uri: string): void {
    if (this.#uris.delete(uri)) this.#open().catch(() => undefined);
  }

  end(): void {
    this.#ended = true;
    clearTimeout(this.#retry);
    this.#current?.abort();
  }

  /** Opens a stream for what is wanted now. Resolves with the resources that the server agreed to. */
  #open(): Promise<string[]> {
    clearTimeout(this.#retry);
    const previous = this.#current;
    const notifications = {
      ...this.#lists,
      ...(this.#uris.size > 0 ? { resourceSubscriptions: [...this.#uris] } : {}),
    };
    if (Object.keys(notifications).length === 0) {
      previous?.abort();
      return Promise.resolve([]);
    }
    const stream = new AbortController();
    this.#current = stream;
    const message: JsonRpcRequest = {
      jsonrpc: '2.0',
      id: `listen-${++this.#streams}`,
      method: 'subscriptions/listen',
      params: { notifications },
    };
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => broken(new MoorageError('server_failed', 'The server does not answer.')),
        ACKNOWLEDGED_WITHIN_MS,
      );
      const broken = (error: MoorageError) => {
        clearTimeout(late);
        previous?.abort();
        stream.abort();
        reject(error);
        if (this.#current === stream) this.#again();
      };
      const sink: CallSink = {
        open: true,
        message: (said) => {
          if (stream.signal.aborted || !isNotification(said)) return;
          if (said.method !== ACKNOWLEDGED) {
            this.#options.heard(legacyNotification(said));
            return;
          }
          clearTimeout(late);
          previous?.abort();
          this.#failures = 0;
          const agreed = isRecord(said.params?.notifications) ? said.params.notifications.resourceSubscriptions : [];
          resolve(Array.isArray(agreed) ? agreed.map(String) : []);
        },
        answer: (answer) => {
          const refused = 'error' in answer;
          if (refused && answer.error.code === -32601) this.#lists = {};
          broken(
            new MoorageError(
              'server_failed',
              refused ? 'The server refuses subscriptions.' : 'The server ended the subscription.',
            ),
          );
        },
        fail: broken,
      };
      this.#options.listen(message, sink, stream.signal).catch((thrown: unknown) => {
        broken(thrown instanceof MoorageError ? thrown : new MoorageError('internal', 'The subscription failed.'));
      });
    });
  }

  #again(): void {
    if (this.#ended) return;
    this.#failures++;
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.#failures, 10));
    this.#retry = setTimeout(() => void this.#open().catch(() => undefined), wait).unref();
  }
}
