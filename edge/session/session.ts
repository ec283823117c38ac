/**
 * Owns the life of a legacy-era session: which messages are admitted, what is remembered for a fresh process, when it ends.
 * Pure: `(state, event) → { state, effects }`; the object beside it acts.
 *
 *   absent ──open──▶ opening ──initialized──▶ open ──end, expire──▶ ended
 *                       └──────initialize-failed, end, expire──────▶ ended
 *
 * Invariants: principal and server never change; only an `open` session admits; nothing leaves `ended`.
 */
import type { ErrorCode } from '../../shared/errors.ts';
import type { Route } from '../directory/route.ts';
import type { Kind } from '../discovery/question.ts';
import type { Told } from '../discovery/view.ts';
import { SESSION_NOT_FOUND } from './refusals.ts';

/** A session that nobody uses for this long is dropped. */
export const IDLE_MS = 24 * 60 * 60 * 1000;
/** An initialize whose outcome was never seen (its client left) is dropped after this long. */
export const OPENING_MS = 15 * 60 * 1000;
export const MAX_SUBSCRIPTIONS = 256;

/** What a process that starts in the middle of a session must be told before it can go on. */
export interface Restore {
  /** `params` of the client's initialize, as JSON text. */
  readonly initialize: string;
  readonly logLevel: string | null;
  /** URIs, in the order of their subscription. */
  readonly subscriptions: readonly string[];
}

/** What a message leaves behind for a later process. */
export type Memory =
  | { readonly type: 'log-level'; readonly level: string }
  | { readonly type: 'subscribe'; readonly uri: string }
  | { readonly type: 'unsubscribe'; readonly uri: string };

export interface LiveSession {
  readonly status: 'opening' | 'open';
  readonly server: string;
  readonly principal: string;
  readonly route: Route;
  readonly restore: Restore;
  /** What its initialize was answered; null while opening. */
  readonly told: Told | null;
  /** Nothing of it ever went to an origin: its initialize was answered from a copy, so no process is there to be told anything. */
  readonly asleep: boolean;
  /** When it was last used, in milliseconds. */
  readonly seenAt: number;
}
export type SessionState = { readonly status: 'absent' } | LiveSession | { readonly status: 'ended' };

export type SessionEvent =
  | {
      readonly type: 'open';
      readonly server: string;
      readonly principal: string;
      readonly route: Route;
      /** As in `Restore`. */
      readonly initialize: string;
      readonly at: number;
    }
  /** `asleep`: from a copy. */
  | { readonly type: 'initialized'; readonly told: Told; readonly asleep: boolean; readonly at: number }
  | { readonly type: 'initialize-failed' }
  /** Another process is behind the session now, and answered its initialize with what `told` says. */
  | { readonly type: 'restored'; readonly told: Told }
  | {
      readonly type: 'message';
      readonly principal: string;
      readonly memory: Memory | null;
      /** It needs the server's process. */
      readonly wakes: boolean;
      readonly at: number;
    }
  | { readonly type: 'listen'; readonly principal: string; readonly at: number }
  | { readonly type: 'reroute'; readonly route: Route }
  | { readonly type: 'end'; readonly principal: string }
  /** Time passed. `listening`: a client holds the session's stream. */
  | { readonly type: 'alarm'; readonly at: number; readonly listening: boolean };

export type SessionEffect =
  | { readonly type: 'admit' }
  | { readonly type: 'refuse'; readonly code: ErrorCode; readonly message: string }
  /** The state must be on disk before anything else happens. */
  | { readonly type: 'save' }
  /** The client is told that these lists may have changed. */
  | { readonly type: 'tell-client'; readonly changed: readonly Kind[] }
  /** Streams are closed and the record removed. */
  | { readonly type: 'forget' }
  /** The server's process is not needed any more. */
  | { readonly type: 'tell-origin'; readonly route: Route; readonly principal: string };

export interface Step {
  readonly state: SessionState;
  readonly effects: readonly SessionEffect[];
}

const LOST: SessionEffect = {
  type: 'refuse',
  code: 'session_not_found',
  message: SESSION_NOT_FOUND,
};

const SAVE: SessionEffect = { type: 'save' };

/** When a session is due to be looked at again, in milliseconds. */
export const dueAt = (state: LiveSession): number => state.seenAt + (state.status === 'open' ? IDLE_MS : OPENING_MS);

export function step(state: SessionState, event: SessionEvent): Step {
  if (state.status === 'ended') return { state, effects: refusals(event) };
  if (state.status === 'absent') {
    if (event.type !== 'open') return { state, effects: refusals(event) };
    const { server, principal, route, initialize, at } = event;
    const restore = { initialize, logLevel: null, subscriptions: [] };
    const opened = { server, principal, route, restore, told: null, asleep: false, seenAt: at };
    return { state: { status: 'opening', ...opened }, effects: [{ type: 'save' }, { type: 'admit' }] };
  }
  switch (event.type) {
    case 'open':
      return { state, effects: [LOST] };
    case 'initialized':
      if (state.status !== 'opening') return { state, effects: [] };
      return {
        state: { ...state, status: 'open', told: event.told, asleep: event.asleep, seenAt: event.at },
        effects: [{ type: 'save' }],
      };
    case 'restored':
      return restored(state, event.told);
    case 'initialize-failed':
      return state.status === 'opening' ? ended(state) : { state, effects: [] };
    case 'message':
    case 'listen':
      return use(state, event);
    case 'reroute':
      return { state: { ...state, route: event.route }, effects: [{ type: 'save' }] };
    case 'end':
      return event.principal === state.principal ? ended(state) : { state, effects: [LOST] };
    case 'alarm':
      if (event.listening && state.status === 'open') {
        return { state: { ...state, seenAt: event.at }, effects: [{ type: 'save' }] };
      }
      return event.at >= dueAt(state) ? ended(state) : { state, effects: [] };
  }
}

/**
 * A fresh process that introduces itself in another way than its client was told. A client cannot change its revision
 * within a session: the session ends, and the client initializes anew. Whatever else changed, it may only ask again.
 */
function restored(state: LiveSession, told: Told): Step {
  if (state.status !== 'open') return { state, effects: [LOST] };
  const { told: before } = state;
  if (before && before.protocolVersion !== told.protocolVersion) {
    const end = ended(state);
    return { ...end, effects: [...end.effects, LOST] };
  }
  const woken = { ...state, told, asleep: false };
  if (before?.digest === told.digest) return { state: woken, effects: state.asleep ? [{ type: 'save' }] : [] };
  const changed = before?.listChanged ?? [];
  return { state: woken, effects: [{ type: 'save' }, { type: 'tell-client', changed }] };
}

/** Another principal's session is answered like none at all: its existence is nobody else's business. */
function use(state: LiveSession, event: Extract<SessionEvent, { type: 'message' | 'listen' }>): Step {
  if (state.status !== 'open' || event.principal !== state.principal) return { state, effects: [LOST] };
  const wakes = event.type === 'message' && event.wakes && state.asleep;
  const seen = { ...state, seenAt: Math.max(state.seenAt, event.at), asleep: state.asleep && !wakes };
  const memory = event.type === 'message' ? event.memory : null;
  if (memory === null) return { state: seen, effects: [...(wakes ? [SAVE] : []), { type: 'admit' }] };
  const restore = remember(state.restore, memory);
  if (restore.subscriptions.length > MAX_SUBSCRIPTIONS) {
    const message = `A session may subscribe to ${MAX_SUBSCRIPTIONS} resources. Unsubscribe from some first.`;
    return { state, effects: [{ type: 'refuse', code: 'overloaded', message }] };
  }
  return { state: { ...seen, restore }, effects: [SAVE, { type: 'admit' }] };
}

function remember(restore: Restore, memory: Memory): Restore {
  if (memory.type === 'log-level') return { ...restore, logLevel: memory.level };
  const others = restore.subscriptions.filter((uri) => uri !== memory.uri);
  return { ...restore, subscriptions: memory.type === 'subscribe' ? [...others, memory.uri] : others };
}

function ended(state: LiveSession): Step {
  const { route, principal } = state;
  return {
    state: { status: 'ended' },
    effects: [{ type: 'forget' }, ...(state.asleep ? [] : [{ type: 'tell-origin', route, principal } as const])],
  };
}

/** What is asked of a session that is not there is refused; what is merely told is ignored. */
function refusals(event: SessionEvent): SessionEffect[] {
  return event.type === 'alarm' || event.type === 'initialize-failed' ? [] : [LOST];
}
