/**
 * Owns the Origin object: one per origin, the edge's end of the agent's link.
 *
 * Invariants: one link at a time, the newest; events are delivered in order and acknowledged only when delivered; a
 * delivery that fails closes the link, so that the agent repeats it. Heartbeats are answered without waking the object.
 *
 * Table `link(id = 1, epoch TEXT, seq INTEGER, last_seen INTEGER)`: the position, and when the agent was last heard, in
 * milliseconds. Each WebSocket carries `{ ready }`: whether its `hello` came.
 */
import { DurableObject } from 'cloudflare:workers';
import { toMoorageError } from '../../shared/errors.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import { signKeys } from '../../shared/grant.ts';
import {
  type DownFrame,
  LINK_VERSION,
  MAX_LINK_FRAME_BYTES,
  PING,
  PING_EVERY_MS,
  PONG,
  type UpFrame,
  upFrame,
} from '../../shared/link.ts';
import { directoryOf } from '../directory/object.ts';
import { changedKindOf } from '../discovery/question.ts';
import { type Env, edgeKeyOf, edgePublicKeysOf, sessionKeyOf, shardsOf } from '../env.ts';
import { laneId } from '../lane/id.ts';
import { laneOf } from '../lane/object.ts';
import { sessionObjectName } from '../session/id.ts';
import { isNew, type LinkPosition, positionAt } from './link.ts';

/** Frames that may wait for their delivery; an agent that sends faster is cut and repeats them later. */
const MAX_WAITING_FRAMES = 1000;
/** Close codes of RFC 6455, section 7.4.1, and of ours (4000-4999). */
const CLOSE = { protocol: 1008, failed: 1011, overloaded: 1013, replaced: 4000, revoked: 4001 } as const;

type Event = Extract<UpFrame, { type: 'event' }>;

export interface Presence {
  readonly connected: boolean;
  /** ISO 8601 time at which the agent was last heard; null when it never was. */
  readonly lastSeen: string | null;
}

export class Origin extends DurableObject<Env> {
  readonly #sql: SqlStorage;
  /** Deliveries follow one another, so that events of a session keep their order. */
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#sql = state.storage.sql;
    this.#sql.exec(
      `CREATE TABLE IF NOT EXISTS link (
         id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT, seq INTEGER NOT NULL, last_seen INTEGER NOT NULL)`,
    );
    state.setWebSocketAutoResponse(new WebSocketRequestResponsePair(PING, PONG));
  }

  /** Whether the link is up. A link that was silent for three heartbeats is dead though nothing closed it. */
  presence(): Presence {
    const heard = this.#heard();
    const open = this.#links().length > 0;
    return {
      connected: open && heard !== null && Date.now() - heard < 3 * PING_EVERY_MS,
      lastSeen: heard === null ? null : new Date(heard).toISOString(),
    };
  }

  /** Ends the link of an origin that is trusted no more. */
  cut(): void {
    for (const link of this.#links()) link.close(CLOSE.revoked, 'this origin was revoked');
  }

  /** The WebSocket of an agent whose token was verified. `moorage-origin-id` is the origin's id. */
  override fetch(request: Request): Response {
    const origin = request.headers.get('moorage-origin-id') ?? '';
    const { 0: client, 1: server } = new WebSocketPair();
    for (const older of this.#links()) older.close(CLOSE.replaced, 'a newer link of this origin took over');
    this.ctx.acceptWebSocket(server, [origin]);
    server.serializeAttachment({ ready: false });
    this.#save(this.#position());
    return new Response(null, { status: 101, webSocket: client });
  }

  override async webSocketMessage(socket: WebSocket, data: string | ArrayBuffer): Promise<void> {
    if (this.#waiting >= MAX_WAITING_FRAMES) return socket.close(CLOSE.overloaded, 'too many frames wait');
    this.#waiting++;
    this.#last = this.#last.then(() => this.#take(socket, data)).finally(() => this.#waiting--);
    await this.#last;
  }

  override webSocketClose(socket: WebSocket, code: number): void {
    // Only the current link says when the agent was last heard: an older one closes because a newer took its place.
    if (code !== CLOSE.replaced) this.#save(this.#position());
    socket.close();
  }

  override webSocketError(): void {
    this.#save(this.#position());
  }

  async #take(socket: WebSocket, data: string | ArrayBuffer): Promise<void> {
    if (socket.readyState !== WebSocket.OPEN) return;
    const frame = readFrame(data);
    if (!frame) return socket.close(CLOSE.protocol, 'not a frame of this version of the link');
    try {
      if (frame.type === 'hello') await this.#hello(socket, frame);
      else await this.#event(socket, frame);
    } catch (thrown) {
      console.error('link frame failed', toMoorageError(thrown).message, thrown instanceof Error ? thrown.stack : '');
      socket.close(CLOSE.failed, 'a frame could not be delivered: connect again and repeat it');
    }
  }

  async #hello(socket: WebSocket, frame: Extract<UpFrame, { type: 'hello' }>): Promise<void> {
    const refused = await directoryOf(this.env).announce(this.#originOf(socket), frame.servers);
    const position = positionAt(frame, this.#position());
    this.#save(position);
    socket.serializeAttachment({ ready: true });
    const now = Date.now();
    const keys = await signKeys(await edgeKeyOf(this.env), edgePublicKeysOf(this.env), this.#originOf(socket), now);
    send(socket, { type: 'welcome', version: LINK_VERSION, now, keys, refused: [...refused] });
    if (position.seq > 0) send(socket, { type: 'ack', seq: position.seq });
  }

  async #event(socket: WebSocket, frame: Event): Promise<void> {
    const position = this.#position();
    const { ready } = socket.deserializeAttachment() as { ready: boolean };
    if (!ready || !position) return socket.close(CLOSE.protocol, 'say hello first');
    if (isNew(frame.seq, position)) {
      await this.#publish(this.#originOf(socket), frame);
      this.#save({ epoch: position.epoch, seq: frame.seq });
    }
    send(socket, { type: 'ack', seq: frame.seq });
  }

  /** Hands a message to every session, one call for each object that holds some of them. */
  async #publish(origin: string, { sessions, lane, message, starting }: Event): Promise<void> {
    const shards = shardsOf(this.env);
    const byObject = Map.groupBy(new Set(sessions), (id) => sessionObjectName(id, shards));
    const text = JSON.stringify(message);
    await Promise.all(
      [...byObject].map(([name, ids]) =>
        this.env.SESSION.get(this.env.SESSION.idFromName(name)).publish(ids, text, origin, starting),
      ),
    );
    const kind = changedKindOf(message);
    if (!lane || kind === null) return;
    // The id is made of the other two: an origin cannot name an object that is not a lane of its caller.
    const id = await laneId(await sessionKeyOf(this.env), lane.server, lane.principal);
    if (id === lane.id) await laneOf(this.env, id).listChanged(lane, origin, kind, starting ?? false);
  }

  #links(): WebSocket[] {
    return this.ctx.getWebSockets().filter((socket) => socket.readyState === WebSocket.OPEN);
  }

  #originOf(socket: WebSocket): string {
    return this.ctx.getTags(socket)[0] ?? '';
  }

  #position(): LinkPosition | undefined {
    const [row] = this.#sql.exec<{ epoch: string | null; seq: number }>('SELECT epoch, seq FROM link').toArray();
    return row?.epoch ? { epoch: row.epoch, seq: row.seq } : undefined;
  }

  /** Saves the position together with the present time: whoever saves has just heard the agent. */
  #save(position: LinkPosition | undefined): void {
    this.#sql.exec(
      'INSERT OR REPLACE INTO link (id, epoch, seq, last_seen) VALUES (1, ?, ?, ?)',
      position?.epoch ?? null,
      position?.seq ?? 0,
      Date.now(),
    );
  }

  #heard(): number | null {
    const [row] = this.#sql.exec<{ last_seen: number }>('SELECT last_seen FROM link').toArray();
    const pings = this.#links().map((socket) => this.ctx.getWebSocketAutoResponseTimestamp(socket)?.getTime() ?? 0);
    const latest = Math.max(row?.last_seen ?? 0, ...pings);
    return latest > 0 ? latest : null;
  }
}

/** A frame, or undefined for anything that is none. */
function readFrame(data: string | ArrayBuffer): UpFrame | undefined {
  if (typeof data !== 'string' || data.length > MAX_LINK_FRAME_BYTES) return undefined;
  try {
    return upFrame.parse(parseExactly(data));
  } catch {
    // Not JSON or not a frame: the same answer, a closed link.
    return undefined;
  }
}

function send(socket: WebSocket, frame: DownFrame): void {
  socket.send(JSON.stringify(frame));
}
