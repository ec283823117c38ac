/**
 * Owns the frames of the link: the WebSocket that an agent dials to the edge (`/_origin/link`), JSON text each.
 *
 * Up: `hello` once, then `event`s (what a server says unasked). Down: `welcome`, `ack`.
 * Events are numbered by the agent within one `epoch` (a start of the agent) and repeated after a reconnect until they
 * are acknowledged, so each reaches its session at least once at the Origin object, which drops what it has seen.
 * The text frames `ping` and `pong` are heartbeats, answered without waking the Origin object.
 */
import { z } from 'zod';
import { isolation } from './config/isolation.ts';
import { serverName } from './config/name.ts';

export const LINK_PATH = '/_origin/link';
export const LINK_VERSION = 1;
/** Says which origin dials; its token is in `Authorization`. */
export const ORIGIN_HEADER = 'moorage-origin';
export const PING = 'ping';
export const PONG = 'pong';
/** The agent sends `ping` this often, in milliseconds. A link silent for three times as long is dead. */
export const PING_EVERY_MS = 30_000;
/** Largest frame in either direction, in bytes (Cloudflare's limit for a received WebSocket message is larger). */
export const MAX_LINK_FRAME_BYTES = 1024 * 1024;

/** How stored answers to discovery are used for a server. */
export const discoverySetting = z.object({
  /** Who is answered from the same copy: every caller, each principal from its own, or nobody. */
  copies: z.enum(['all', 'principal', 'none']),
  /** Older copies are fetched anew, in seconds. */
  maxAgeS: z.number().int().positive(),
});
export type DiscoverySetting = z.infer<typeof discoverySetting>;
export const DEFAULT_DISCOVERY: DiscoverySetting = { copies: 'all', maxAgeS: 86_400 };

/** A server as its origin announces it. `machine` is the machine's name: servers that share one have the same. */
export const announcedServer = z.object({
  name: serverName,
  runtime: z.enum(['vm', 'process', 'http']),
  machine: z.string().min(1).max(128),
  /** Digest of everything that decides what runs: the deployment's id. */
  deployment: z.string().min(1).max(128),
  discovery: discoverySetting.optional(),
  /** What gets a machine of its own, made after `machine`. Absent: nobody. */
  isolation: isolation.optional(),
});
export type AnnouncedServer = z.infer<typeof announcedServer>;

/** A lane whose server changed a list, and what its client declares: enough to ask in its name what is listed now. */
export const changedLane = z.object({
  id: z.string().min(1).max(256),
  server: serverName,
  principal: z.string().min(1),
  capabilities: z.record(z.string(), z.unknown()),
});
export type ChangedLane = z.infer<typeof changedLane>;

export const upFrame = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('hello'),
    version: z.literal(LINK_VERSION),
    /** Fresh with every start of the agent. */
    epoch: z.string().min(8).max(64),
    agent: z.string().max(64),
    servers: z.array(announcedServer).max(1000),
  }),
  z.object({
    type: z.literal('event'),
    /** 1, 2, 3 … within the epoch. */
    seq: z.number().int().positive(),
    /** Session ids that the message is for. */
    sessions: z.array(z.string().max(256)).max(1000),
    /** Where lanes use the process that says it: one of them. They hear it by their own requests; the edge keeps its copies by it. */
    lane: changedLane.optional(),
    /** True where the process had not been called yet: it says what it is, not what became of it. */
    starting: z.boolean().optional(),
    message: z.record(z.string(), z.unknown()),
  }),
]);
export type UpFrame = z.infer<typeof upFrame>;

export const downFrame = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('welcome'),
    version: z.literal(LINK_VERSION),
    /** The edge's clock, in milliseconds. */
    now: z.number(),
    /** Its statement about its keys (`grant.ts`). */
    keys: z.string().max(4096),
    /** Servers that the edge does not take from this origin, with the reason. */
    refused: z.array(z.object({ server: z.string(), reason: z.string() })),
  }),
  z.object({ type: z.literal('ack'), seq: z.number().int().nonnegative() }),
]);
export type DownFrame = z.infer<typeof downFrame>;
