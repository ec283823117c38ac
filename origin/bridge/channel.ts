/**
 * The seam between a server and whoever speaks to it: messages in both directions, whatever carries them (the pipes of a
 * process, HTTP requests). Nothing here acts.
 *
 * Ownership: who opens a channel must `end` it. `events` are called until `closed` resolves, and never after it.
 * Cancellation: `abandon` gives up one request; the channel itself stays.
 */
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

/** What a channel tells its owner. */
export interface ChannelEvents {
  /** A message of the server. `via` is the id of the request on whose own stream it came, where requests have streams. */
  message(message: JsonRpcMessage, via?: number): void;
  /** The answer to request `id` will never come; everything else goes on. */
  lost(id: number, error: MoorageError): void;
}

/** How a channel ended: a sentence without its full stop, and JSON-safe detail. No secrets in either. */
export interface ChannelEnd {
  readonly what: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface Channel {
  /** Hands a message over. Requests have ids of ours: whole numbers. Never throws; a message after the end is dropped. */
  send(message: JsonRpcMessage, options?: SendOptions): void;
  /** Closes the stream of one request. Returns false where requests have no streams: then a message must say it. */
  abandon(id: number): boolean;
  /** Bytes handed over that the server has not taken. */
  readonly unread: number;
  readonly closed: Promise<ChannelEnd>;
  /** Resolves when the server can hear; absent where it always can. Rejects with a MoorageError when it cannot be woken. */
  awake?(): Promise<void>;
  /** Whether it must be woken to hear; absent where it never must. */
  readonly asleep?: boolean;
  /** Whether the server's process outlives us: it is then not ended with us. */
  readonly outlives?: boolean;
  /** Ends the server's process, or the connection to it. Resolves when it is gone. */
  end(): Promise<void>;
}

export interface SendOptions {
  /** Headers that repeat arguments of the message (`Mcp-Param-*`), for channels that have headers. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Opens a channel whose events go to `events`. Called once. */
export type OpenChannel = (events: ChannelEvents) => Channel;

/** What the caller of a request hears when its answer was no message. */
export const badAnswer = (server: string): MoorageError =>
  new MoorageError('server_failed', `The answer of the server "${server}" is not a JSON-RPC message.`);
