/**
 * Owns one call of a client without sessions at a server that has them: the only place that acts on what `park.ts`
 * decides for it.
 *
 * Ownership: the call stands between two sinks. Towards the server it is the sink of one request that stays in flight while
 * the client is asked; towards the client it answers one reader after the other (the first request and its retries).
 */
import { MoorageError } from '../../../shared/errors.ts';
import {
  isNotification,
  isRequest,
  type JsonRpcMessage,
  type JsonRpcRequest,
  type JsonRpcResponse,
  nameFrom,
} from '../../../shared/jsonrpc.ts';
import { capabilityRequired, type Envelope, INPUT_METHODS, isRecord } from '../../../shared/rev-2026-07-28.ts';
import {
  begin,
  type Outcome,
  type ParkEffect,
  type ParkEvent,
  type ParkState,
  type ParkStep,
  type Question,
  step,
} from '../park.ts';
import type { CallSink } from '../peer.ts';
import { badState } from '../request-state.ts';
import {
  inputRequestOf,
  isAtLeast,
  isDeclared,
  modernError,
  modernResult,
  neededFor,
  URL_NEEDED,
  urlQuestions,
} from '../to-modern.ts';

/** One try of the client: the first request, or a retry of it. */
export interface Reader {
  readonly id: JsonRpcRequest['id'];
  readonly sink: CallSink;
  readonly envelope: Envelope;
  /** Aborts when its connection closes. */
  readonly signal: AbortSignal;
}

/** What a call needs around it. */
export interface CallContext {
  readonly method: string;
  readonly serverInfo: unknown;
  /** Hands the request to the server; aborting `signal` cancels it there. */
  forward(sink: CallSink, signal: AbortSignal): void;
  /** Answers a question of the server. */
  reply(id: string, answer: { result: unknown } | { error: { code: number; message: string } }): void;
  /** Seals a state for a round of this call, or for a fresh try where `round` is absent. */
  seal(round?: number): string;
  /** Whether one more call may wait for its client. */
  mayPark(): boolean;
  /** A question that this call cannot put to its client, and some other might. */
  orphan(question: JsonRpcRequest): void;
  /** The call is over, or begins or ends waiting for its client. */
  changed(): void;
}

/** Questions that come within this time go to the client together, in milliseconds. */
const COLLECT_MS = 15;

export class LaneCall {
  readonly #context: CallContext;
  readonly #upstream = new AbortController();
  #state: ParkState;
  #reader: Reader | undefined;
  #envelope: Envelope;
  #questions = 0;
  /** Capabilities that the server asked for and the client did not declare. */
  #insisted: Record<string, unknown> | undefined;

  constructor(context: CallContext, reader: Reader, orphans: readonly JsonRpcRequest[]) {
    this.#context = context;
    this.#envelope = reader.envelope;
    this.#attach(reader);
    const first = begin(orphans.map((question) => this.#question(question)));
    this.#state = first.state;
    this.#act(first);
  }

  get parked(): boolean {
    return this.#state.name === 'asking';
  }

  get over(): boolean {
    return this.#state.name === 'over';
  }

  /** A retry. Its reader is settled here, whatever becomes of the call. */
  retry(reader: Reader, round: number, responses: Readonly<Record<string, unknown>>): void {
    if (this.#state.name !== 'asking' || this.#state.round !== round) {
      reader.sink.fail(badState());
      return;
    }
    this.#envelope = reader.envelope;
    this.#attach(reader);
    this.#send({ type: 'retried', round, responses });
  }

  /** Its client did not come back in time. */
  expire(): void {
    this.#send({ type: 'expired' });
  }

  #attach(reader: Reader): void {
    this.#reader = reader;
    reader.signal.addEventListener(
      'abort',
      () => {
        if (this.#reader === reader) this.#send({ type: 'gone' });
      },
      { once: true },
    );
  }

  #send(event: ParkEvent): void {
    const next = step(this.#state, event);
    this.#state = next.state;
    this.#act(next);
  }

  #act({ effects }: ParkStep): void {
    for (const effect of effects) this.#do(effect);
    this.#context.changed();
  }

  #do(effect: ParkEffect): void {
    switch (effect.type) {
      case 'collect':
        setTimeout(() => this.#send({ type: 'collected' }), COLLECT_MS);
        return;
      case 'put':
        this.#put(effect.round, effect.questions);
        return;
      case 'reply':
        this.#context.reply(effect.id, isRecord(effect.result) ? { result: effect.result } : NOT_AN_ANSWER);
        return;
      case 'decline':
        this.#context.reply(effect.id, NOT_ASKABLE);
        return;
      case 'forward':
        this.#context.forward(this.#sink(), this.#upstream.signal);
        return;
      case 'settle':
        this.#settle(effect.outcome);
        return;
      case 'cancel':
        this.#upstream.abort();
        return;
      case 'refuse':
        this.#take()?.sink.fail(badState());
        return;
    }
  }

  #put(round: number, questions: readonly Question[]): void {
    const reader = this.#take();
    if (!this.#context.mayPark()) {
      for (const { id } of questions) this.#context.reply(id, NOT_ASKABLE);
      this.#upstream.abort();
      this.#state = { name: 'over' };
      reader?.sink.fail(
        new MoorageError('overloaded', 'Too many calls wait for answers of their clients. Try again later.'),
      );
      return;
    }
    reader?.sink.answer({
      jsonrpc: '2.0',
      id: reader.id,
      result: inputRequired(questions, this.#context.seal(round)),
    });
  }

  #settle(outcome: Outcome): void {
    const reader = this.#take();
    if (!reader) return;
    if ('error' in outcome) reader.sink.fail(outcome.error);
    else this.#answer(reader, outcome.answer);
  }

  #answer({ id, sink }: Reader, answer: JsonRpcResponse): void {
    const failed = 'error' in answer || answer.result.isError === true;
    if (failed && this.#insisted) {
      sink.fail(capabilityRequired(this.#insisted));
      return;
    }
    if ('result' in answer) {
      const result = modernResult(this.#context.method, answer.result, this.#context.serverInfo);
      sink.answer({ jsonrpc: '2.0', id, result });
      return;
    }
    const visits = INPUT_METHODS.has(this.#context.method) ? urlQuestions(answer.error) : [];
    if (visits.length === 0) {
      sink.answer({ jsonrpc: '2.0', id, error: modernError(answer.error) });
    } else if (isDeclared({ elicitation: { url: {} } }, this.#envelope.capabilities)) {
      // Nothing waits at the server: after the visit the same request is sent again.
      const questions = visits.map((ask) => this.#named('', ask));
      sink.answer({ jsonrpc: '2.0', id, result: inputRequired(questions, this.#context.seal()) });
    } else {
      sink.fail(URL_NEEDED);
    }
  }

  /** Towards the server: open for as long as the call lives, reader or not. */
  #sink(): CallSink {
    const isOver = () => this.over;
    return {
      get open() {
        return !isOver();
      },
      message: (message) => this.#said(message),
      answer: (answer) => this.#send({ type: 'outcome', outcome: { answer } }),
      fail: (error) => this.#send({ type: 'outcome', outcome: { error: neverUnknown(error) } }),
    };
  }

  #said(message: JsonRpcMessage): void {
    if (isRequest(message)) this.#asked(message);
    else if (isNotification(message)) {
      if (message.method === 'notifications/cancelled') {
        this.#send({ type: 'withdrawn', id: nameFrom(message.params?.requestId) });
        return;
      }
      const isProgress = message.method === 'notifications/progress';
      const level = this.#envelope.logLevel;
      const isWantedLog =
        message.method === 'notifications/message' && level !== undefined && isAtLeast(message.params?.level, level);
      if ((isProgress || isWantedLog) && this.#reader?.sink.open) this.#reader.sink.message(message);
    }
  }

  #asked(question: JsonRpcRequest): void {
    const needed = neededFor(question);
    if (!needed) {
      this.#context.reply(String(question.id), NOT_ASKABLE);
    } else if (!isDeclared(needed, this.#envelope.capabilities)) {
      this.#insisted = { ...this.#insisted, ...needed };
      this.#context.reply(String(question.id), NOT_ASKABLE);
    } else if (INPUT_METHODS.has(this.#context.method)) {
      this.#send({ type: 'question', question: this.#question(question) });
    } else {
      this.#context.orphan(question);
    }
  }

  #question(question: JsonRpcRequest): Question {
    return this.#named(String(question.id), inputRequestOf(question));
  }

  #named(id: string, ask: Record<string, unknown>): Question {
    return { id, key: `input-${++this.#questions}`, ask };
  }

  #take(): Reader | undefined {
    const reader = this.#reader;
    this.#reader = undefined;
    return reader;
  }
}

export const NOT_ASKABLE = { error: { code: -32601, message: 'This client cannot be asked that.' } } as const;
const NOT_AN_ANSWER = { error: { code: -32603, message: 'The client gave no usable answer.' } } as const;

function inputRequired(questions: readonly Question[], requestState: string): Record<string, unknown> {
  const inputRequests = Object.fromEntries(questions.map(({ key, ask }) => [key, ask]));
  return { resultType: 'input_required', inputRequests, requestState };
}

/** A lane has no session that could be unknown: its server is gone, and the next request starts it again. */
function neverUnknown(error: MoorageError): MoorageError {
  return error.code === 'session_unknown' ? new MoorageError('server_failed', error.message, error.data) : error;
}
