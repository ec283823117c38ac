/**
 * Owns the life of one call of a client without sessions at a server that asks back, as a pure state machine:
 * `(state, event) -> (state, effects)`. No clock, no I/O.
 *
 * ```
 * running ──question, collected──▶ asking ──retried, all answered──▶ running
 *    │  ▲                            │ └──retried, some missing──▶ asking (next round)
 * outcome / gone                  expired
 *    ▼                               ▼
 *   over ◀───────────────────────────┘
 * ```
 * While `asking` nobody reads: the client was answered `input_required` and comes back, or does not. An outcome that
 * arrives then waits for it.
 * Invariants: a question is answered at most once; every reader is settled exactly once (`put`, `settle` or `refuse`);
 * a round is good for one retry.
 */
import type { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcResponse } from '../../shared/jsonrpc.ts';

/** Something that the server asked. `key` names it towards the client. */
export interface Question {
  /** Under which the answer is passed back. */
  readonly id: string;
  readonly key: string;
  readonly ask: Readonly<Record<string, unknown>>;
}

export type Outcome = { readonly answer: JsonRpcResponse } | { readonly error: MoorageError };

export type ParkState =
  | { readonly name: 'running'; readonly round: number; readonly pending: readonly Question[] }
  | {
      readonly name: 'asking';
      readonly round: number;
      readonly asked: readonly Question[];
      readonly pending: readonly Question[];
      readonly outcome?: Outcome;
      /** The call itself has not been handed over: it waits for answers that the server wanted before. */
      readonly unsent: boolean;
    }
  | { readonly name: 'over' };

export type ParkEvent =
  | { readonly type: 'question'; readonly question: Question }
  /** The server takes a question back. */
  | { readonly type: 'withdrawn'; readonly id: string }
  /** Questions asked in one breath have arrived. */
  | { readonly type: 'collected' }
  | { readonly type: 'outcome'; readonly outcome: Outcome }
  | { readonly type: 'retried'; readonly round: number; readonly responses: Readonly<Record<string, unknown>> }
  /** The reader's connection closed. */
  | { readonly type: 'gone' }
  | { readonly type: 'expired' };

export type ParkEffect =
  /** Say `collected` in a moment. */
  | { readonly type: 'collect' }
  /** Answer the reader `input_required`, with a state for this round. */
  | { readonly type: 'put'; readonly round: number; readonly questions: readonly Question[] }
  | { readonly type: 'reply'; readonly id: string; readonly result: unknown }
  /** Tell the server that a question will not be answered: another call of its may wait for it. */
  | { readonly type: 'decline'; readonly id: string }
  | { readonly type: 'forward' }
  | { readonly type: 'settle'; readonly outcome: Outcome }
  /** Give up the call at the server. */
  | { readonly type: 'cancel' }
  /** Tell the one who retried that this state is not good (any more). */
  | { readonly type: 'refuse' };

export interface ParkStep {
  readonly state: ParkState;
  readonly effects: readonly ParkEffect[];
}

const OVER: ParkState = { name: 'over' };

/** The first step of a call, with questions that the server asked before anyone could be asked. */
export function begin(questions: readonly Question[]): ParkStep {
  return questions.length === 0
    ? { state: { name: 'running', round: 0, pending: [] }, effects: [{ type: 'forward' }] }
    : {
        state: { name: 'asking', round: 1, asked: questions, pending: [], unsent: true },
        effects: [{ type: 'put', round: 1, questions }],
      };
}

export function step(state: ParkState, event: ParkEvent): ParkStep {
  switch (state.name) {
    case 'running':
      return running(state, event);
    case 'asking':
      return asking(state, event);
    case 'over':
      return event.type === 'retried' ? { state, effects: [{ type: 'refuse' }] } : stay(state);
  }
}

function running(state: ParkState & { name: 'running' }, event: ParkEvent): ParkStep {
  const { round, pending } = state;
  switch (event.type) {
    case 'question':
      return {
        state: { ...state, pending: [...pending, event.question] },
        effects: pending.length === 0 ? [{ type: 'collect' }] : [],
      };
    case 'withdrawn':
      return stay({ ...state, pending: without(pending, event.id) });
    case 'collected':
      return pending.length === 0
        ? stay(state)
        : {
            state: { name: 'asking', round: round + 1, asked: pending, pending: [], unsent: false },
            effects: [{ type: 'put', round: round + 1, questions: pending }],
          };
    case 'outcome':
      return { state: OVER, effects: [{ type: 'settle', outcome: event.outcome }] };
    case 'gone':
      return { state: OVER, effects: [...declined(pending), { type: 'cancel' }] };
    case 'retried':
      return { state, effects: [{ type: 'refuse' }] };
    case 'expired':
      return stay(state);
  }
}

function asking(state: ParkState & { name: 'asking' }, event: ParkEvent): ParkStep {
  switch (event.type) {
    case 'question':
      return stay({ ...state, pending: [...state.pending, event.question] });
    case 'withdrawn':
      return stay({ ...state, asked: without(state.asked, event.id), pending: without(state.pending, event.id) });
    case 'outcome':
      return stay(state.outcome ? state : { ...state, outcome: event.outcome });
    case 'retried':
      return event.round === state.round ? retried(state, event.responses) : { state, effects: [{ type: 'refuse' }] };
    case 'expired':
      return { state: OVER, effects: [...declined([...state.asked, ...state.pending]), { type: 'cancel' }] };
    case 'collected':
    case 'gone':
      return stay(state);
  }
}

function retried(state: ParkState & { name: 'asking' }, responses: Readonly<Record<string, unknown>>): ParkStep {
  const { round, asked, pending, outcome, unsent } = state;
  const answered = asked.filter(({ key }) => Object.hasOwn(responses, key));
  const missing = asked.filter(({ key }) => !Object.hasOwn(responses, key));
  const replies = answered.map(({ id, key }): ParkEffect => ({ type: 'reply', id, result: responses[key] }));
  if (outcome) return { state: OVER, effects: [{ type: 'settle', outcome }] };
  if (missing.length > 0) {
    const questions = [...missing, ...pending];
    return {
      state: { name: 'asking', round: round + 1, asked: questions, pending: [], unsent },
      effects: [...replies, { type: 'put', round: round + 1, questions }],
    };
  }
  const next: ParkEffect[] = unsent ? [{ type: 'forward' }] : [];
  if (pending.length > 0) next.push({ type: 'collect' });
  return { state: { name: 'running', round, pending }, effects: [...replies, ...next] };
}

const declined = (questions: readonly Question[]) => questions.map(({ id }): ParkEffect => ({ type: 'decline', id }));
const without = (questions: readonly Question[], id: string) => questions.filter((question) => question.id !== id);
const stay = (state: ParkState): ParkStep => ({ state, effects: [] });
