/**
 * Owns one call of a client with a session at a server without: its rounds. When the server answers `input_required`, what
 * it wants to know is asked as requests on the call's stream, and the call is sent again with the answers and the state
 * exactly as it came (2026-07-28, basic/patterns/mrtr).
 *
 * States: sent (waiting for the server), asking (waiting for the client), over. Bounded in rounds and in the time a client
 * has. The sink is settled exactly once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MoorageError } from '../../../shared/errors.ts';
import {
  isNotification,
  type JsonRpcMessage,
  type JsonRpcRequest,
  type JsonRpcResponse,
} from '../../../shared/jsonrpc.ts';
import { isRecord } from '../../../shared/rev-2026-07-28.ts';
import type { CallSink } from '../peer.ts';
import { legacyResult, questionOf } from '../to-legacy.ts';
import { isDeclared, neededFor } from '../to-modern.ts';

export interface StatelessCallOptions {
  readonly message: JsonRpcRequest;
  readonly sink: CallSink;
  /** Part of every question's name, so that an answer meant for another session finds nothing here. */
  readonly nonce: string;
  /** What the client can be asked. */
  readonly declared: Readonly<Record<string, unknown>>;
  /** Where questions go when the call's stream is gone. */
  readonly unasked: (message: JsonRpcMessage) => void;
  /** Sends the request with what a retry adds to its params. */
  send(params: Readonly<Record<string, unknown>>, sink: CallSink, signal: AbortSignal): Promise<void>;
  over(): void;
}

const MAX_ROUNDS = 10;
const MAX_QUESTIONS = 100;
/** How long a client has for the questions of one round, in milliseconds. */
const ROUND_WITHIN_MS = 10 * 60_000;
/** Between rounds in which nothing is asked, in milliseconds. */
const PACE_MS = 100;

let questions = 0;

export class StatelessCall {
  readonly #options: StatelessCallOptions;
  readonly #abort = new AbortController();
  readonly #waiting = new Map<string, (answer: JsonRpcResponse) => void>();
  #over = false;

  constructor(options: StatelessCallOptions) {
    this.#options = options;
  }

  /** The client's id of the call. */
  get id(): JsonRpcRequest['id'] {
    return this.#options.message.id;
  }

  start(): void {
    this.#rounds().catch((thrown: unknown) => this.#settle((sink) => sink.fail(failureOf(thrown))));
  }

  /** The client gives the call up. */
  cancel(): void {
    this.#abort.abort();
    const error = new MoorageError('outcome_unknown', 'The call was cancelled by its client.', {
      cause: 'cancelled',
      retryable: false,
    });
    this.#settle((sink) => sink.fail(error));
  }

  /** @returns whether the client's answer was to a question of this call. */
  answered(answer: JsonRpcResponse): boolean {
    const resolve = this.#waiting.get(String(answer.id));
    this.#waiting.delete(String(answer.id));
    resolve?.(answer);
    return resolve !== undefined;
  }

  async #rounds(): Promise<void> {
    let more: Record<string, unknown> = {};
    for (let round = 0; round <= MAX_ROUNDS && !this.#over; round++) {
      const answer = await this.#once(more);
      if (!('result' in answer) || answer.result.resultType !== 'input_required') {
        this.#settle((sink) => sink.answer(this.#translated(answer)));
        return;
      }
      const { inputRequests, requestState } = answer.result;
      const asked = isRecord(inputRequests) ? inputRequests : {};
      if (Object.keys(asked).length === 0) await sleep(PACE_MS, undefined, { signal: this.#abort.signal });
      const inputResponses = await this.#ask(asked);
      if (typeof inputResponses === 'string') {
        this.#fail(inputResponses);
        return;
      }
      more = {
        ...(Object.keys(asked).length > 0 ? { inputResponses } : {}),
        ...(requestState === undefined ? {} : { requestState }),
      };
    }
    this.#fail(`The server asked more than ${MAX_ROUNDS} times and was given up.`);
  }

  #once(more: Readonly<Record<string, unknown>>): Promise<JsonRpcResponse> {
    const { sink, send } = this.#options;
    return new Promise((resolve, reject) => {
      const isOpen = () => !this.#over && sink.open;
      const inner: CallSink = {
        get open() {
          return isOpen();
        },
        message: (message) => {
          if (isNotification(message) && isOpen()) sink.message(message);
        },
        answer: resolve,
        fail: reject,
      };
      send(more, inner, this.#abort.signal).catch(reject);
    });
  }

  /** Puts the questions of one round to the client. @returns its answers by key, or why the call cannot go on. */
  async #ask(asked: Readonly<Record<string, unknown>>): Promise<Record<string, unknown> | string> {
    const entries = Object.entries(asked);
    if (entries.length > MAX_QUESTIONS) return `The server asked ${entries.length} things at once.`;
    const round: { key: string; question: JsonRpcRequest }[] = [];
    for (const [key, ask] of entries) {
      const question = questionOf(`${this.#options.nonce}-${++questions}`, ask);
      const needed = question && neededFor(question);
      if (!question || !needed) return 'The server asked for something that no client can be asked.';
      if (!isDeclared(needed, this.#options.declared)) {
        return `The server needs what this client did not declare: ${Object.keys(needed).join(', ')}.`;
      }
      round.push({ key, question });
    }
    const late = AbortSignal.timeout(ROUND_WITHIN_MS);
    const answers = await Promise.all(
      round.map(async ({ key, question }) => ({ key, question, answer: await this.#put(question, late) })),
    );
    const responses: Record<string, unknown> = {};
    for (const { key, question, answer } of answers) {
      if (answer && 'result' in answer) responses[key] = answer.result;
      // A form that was not shown is a form that was not filled in: the server can go on.
      else if (question.method === 'elicitation/create') responses[key] = { action: 'cancel' };
      else return `The client did not answer "${question.method}".`;
    }
    return responses;
  }

  #put(question: JsonRpcRequest, late: AbortSignal): Promise<JsonRpcResponse | undefined> {
    const { sink, unasked } = this.#options;
    return new Promise((resolve) => {
      const give = (answer: JsonRpcResponse | undefined) => {
        this.#waiting.delete(String(question.id));
        resolve(answer);
      };
      this.#waiting.set(String(question.id), give);
      for (const signal of [late, this.#abort.signal])
        signal.addEventListener('abort', () => give(undefined), { once: true });
      if (sink.open) sink.message(question);
      else unasked(question);
    });
  }

  #translated(answer: JsonRpcResponse): JsonRpcResponse {
    const { method, id } = this.#options.message;
    if ('error' in answer) return { ...answer, id };
    return { jsonrpc: '2.0', id, result: legacyResult(method, answer.result) };
  }

  /** A tool that cannot go on has failed as a tool; anything else has failed as a request. */
  #fail(why: string): void {
    const { method, id } = this.#options.message;
    this.#settle((sink) => {
      if (method === 'tools/call') {
        sink.answer({ jsonrpc: '2.0', id, result: { content: [{ type: 'text', text: why }], isError: true } });
      } else {
        sink.fail(new MoorageError('server_failed', why));
      }
    });
  }

  #settle(by: (sink: CallSink) => void): void {
    if (this.#over) return;
    this.#over = true;
    this.#options.over();
    by(this.#options.sink);
  }
}

/** The session is kept here, whatever becomes of the process behind it. */
function failureOf(thrown: unknown): MoorageError {
  if (!(thrown instanceof MoorageError)) return new MoorageError('internal', 'The call could not be passed on.');
  return thrown.code === 'session_unknown' ? new MoorageError('server_failed', thrown.message, thrown.data) : thrown;
}
