/**
 * Owns what the edge answers in a server's place, so that nothing wakes for it: initialize and the lists from stored
 * copies, ping, and what need not be told to a process that is not there.
 *
 * | Message | Answered here |
 * |---|---|
 * | `initialize` | from the copy; the session then sleeps until a message needs the process |
 * | a list | from the copy while the session sleeps; after that its own process is asked if it runs, and the copy stands in when it does not |
 * | `ping` | always |
 * | `logging/setLevel` | while the session sleeps, if the server has logging: remembered, and said to the process when there is one |
 * | notifications, responses | taken while the session sleeps |
 *
 * `resources/subscribe` wakes: a subscription exists in order to be told, and only a process that runs can tell.
 */
import { isRequest, type JsonRpcMessage, type JsonRpcRequest, type RequestId } from '../../shared/jsonrpc.ts';
import { LOG_LEVELS } from '../../shared/rev-2026-07-28.ts';
import { directoryOf } from '../directory/object.ts';
import type { Env } from '../env.ts';
import { prefersStream } from '../read-message.ts';
import { STREAM_HEADERS } from '../respond.ts';
import type { Admission } from '../session/object.ts';
import { eventOf } from '../sse.ts';
import { type Answer, answerOf } from './copies.ts';
import { kindOf, type Question } from './question.ts';
import type { View } from './view.ts';

/** A stored answer, or none, and what to do with the live one. */
export interface Known {
  readonly copy: Answer | null;
  /** Since its server gave it, in milliseconds. */
  readonly ageMs: number;
  /** Stores what the server answers, on nobody's time. */
  keep(answer: JsonRpcMessage): void;
}

/** Looks for the copy. It must be done before the server is asked: what changes meanwhile is then not stored. */
export async function lookUp(
  env: Env,
  view: View,
  question: Question,
  waitUntil: (promise: Promise<unknown>) => void,
): Promise<Known> {
  const { copy, asked } = await directoryOf(env).recall(view, question);
  return {
    copy,
    ageMs: copy ? Math.max(0, asked - copy.stored) : 0,
    keep: (message) => {
      const answer = answerOf(message, question.method);
      if (answer) waitUntil(directoryOf(env).remember(view, question, answer, asked));
    },
  };
}

/** Whether a message needs the server's process, whatever is stored. */
export function needsProcess(message: JsonRpcMessage): boolean {
  if (!isRequest(message)) return false;
  return message.method !== 'ping' && message.method !== 'logging/setLevel' && kindOf(message.method) === null;
}

/** The answer to a message that no process is needed for, or null. */
export function answerInPlace(
  message: JsonRpcMessage,
  { told, asleep }: Admission,
  accept: string | null,
): Response | null {
  if (!isRequest(message)) return asleep ? new Response(null, { status: 202 }) : null;
  if (message.method === 'ping') return answered(message.id, EMPTY, accept);
  const remembered = message.method === 'logging/setLevel' && asleep && (told?.logging ?? false) && hasLevel(message);
  return remembered ? answered(message.id, EMPTY, accept) : null;
}

/** The response to request `id`, as JSON text. */
export function responseText(id: RequestId, { text, refused }: Answer): string {
  return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"${refused ? 'error' : 'result'}":${text}}`;
}

/** The response in the form that `Accept` prefers. A stream needs no event ids: it is whole. */
export function answered(id: RequestId, answer: Answer, accept: string | null): Response {
  const text = responseText(id, answer);
  return prefersStream(accept)
    ? new Response(eventOf(text), { headers: STREAM_HEADERS })
    : new Response(text, { headers: { 'content-type': 'application/json' } });
}

const EMPTY: Answer = { text: '{}', refused: false };

const hasLevel = ({ params }: JsonRpcRequest): boolean => LOG_LEVELS.some((known) => known === params?.level);
