/**
 * Owns a router's state folder: who uses it (one router at a time) and where that one can be reached, its keys, and
 * where its socket lies.
 *
 * | File | What |
 * |---|---|
 * | `keys.json` | private keys of the local edge and origin (Ed25519 JWKs) and the secret of session ids; 0600 |
 * | `owner.json` | the owner's private key (Ed25519 JWK), with which the command line administers the edge; 0600 |
 * | `up.json` | the router that uses the folder: `pid`, `start` (of the process, so that a reused id is no owner), `kind`, and the edge's `url` once it serves |
 * | `origin.json` | of an origin that was enrolled at an edge elsewhere: that edge, its pinned keys, this origin's private key; 0600 |
 * | `edge/` | the edge: its bundle and its Durable Objects' storage |
 * | `streams.db` | the agent's journal: streams that clients may resume |
 * | `machines/<key>/` | one folder a machine: its disk, and its image while it sleeps |
 * | `control.sock` | where the router that uses the folder takes its owner's commands |
 * | `authorized_keys` | keys of people who may enter machines by SSH; theirs to write |
 * | `ssh_host_ed25519_key`, `.pub` | the key by which SSH clients know this origin; 0600 |
 * | `secrets.db`, `secrets.key` | values that servers need (sealed), and the key; 0600 |
 * | `logs/` | the owner's log |
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import { z } from 'zod';
import { processStart } from '../origin/vm/pid.ts';
import { type PublicKey, publicKey } from '../shared/enrolment.ts';
import { RouterError } from './error.ts';

const jwk = z.looseObject({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: z.string(), d: z.string() });
const keysSchema = z.object({ edge: jwk, nextEdge: jwk.optional(), origin: jwk, sessionSecret: z.string().min(32) });

export interface Keys {
  readonly edge: JWK;
  /** What will follow `edge`: announced to origins, and signs nothing yet. */
  readonly nextEdge?: JWK | undefined;
  readonly origin: JWK;
  readonly sessionSecret: string;
}

/** The public half of a private JWK. */
export function publicHalf(key: JWK): PublicKey {
  const { kty, crv, x } = key;
  return publicKey.parse({ kty, crv, x });
}

/** What uses a folder: `moorage up`, `moorage stdio` of some MCP client, a program, or `moorage origin run`. */
const kinds = ['up', 'stdio', 'program', 'origin'] as const;
export type HolderKind = (typeof kinds)[number];

const holderSchema = z.object({
  pid: z.number().int(),
  start: z.string(),
  kind: z.enum(kinds).default('up'),
  url: z.string().optional(),
});

/** The living router that uses a folder. `url` is the edge's; absent while it starts. */
export type Holder = Readonly<z.infer<typeof holderSchema>>;

/** Who uses a folder right now, as its `up.json` tells; undefined when nobody living does. */
export function holderOf(dir: string): Holder | undefined {
  return livingHolder(join(dir, 'up.json'));
}

/** Whether the process of a holder lives. Cheap: one read of /proc. */
export const isAlive = ({ pid, start }: Holder): boolean => processStart(pid) === start;

/** A folder that a router of this process uses. */
export interface TakenState {
  /** Tells others where the router can be reached. */
  publish(url: string): void;
  /** Gives the folder back. */
  release(): void;
}

/**
 * Makes the folder (0700) and takes it for a router of this process.
 * @throws RouterError `state_in_use` when a living router has it, be it of this process.
 */
export function takeState(dir: string, kind: HolderKind): TakenState {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  chmodSync(dir, 0o700);
  const file = join(dir, 'up.json');
  const draft = `${file}.${process.pid}`;
  const stale = `${draft}.stale`;
  const holder: Holder = { pid: process.pid, start: processStart(process.pid) ?? '', kind };
  try {
    writeFileSync(draft, JSON.stringify(holder), { mode: 0o600 });
    // Several clients start `moorage stdio` at the same moment: of those that find no owner, the link lets one through.
    for (let taken = false; !taken; ) {
      const other = livingHolder(file);
      if (other) throw new RouterError('state_in_use', inUse(other));
      if (moved(file, stale) && livingHolder(stale)) moved(stale, file);
      else taken = linked(draft, file);
    }
  } finally {
    for (const left of [draft, stale]) rmSync(left, { force: true });
  }
  return {
    publish: (url) => writeAtomically(file, { ...holder, url }),
    release: () => rmSync(file, { force: true }),
  };
}

function livingHolder(file: string): Holder | undefined {
  const holder = holderSchema.safeParse(readJson(file));
  return holder.success && isAlive(holder.data) ? holder.data : undefined;
}

function inUse({ pid, kind }: Holder): string {
  const other = 'or choose another folder with --state (in a program: stateDir).';
  switch (kind) {
    case 'up':
      return `moorage is running already (process ${pid}). Stop it first, ${other}`;
    case 'stdio':
      return `moorage is running already: "moorage stdio" of an MCP client (process ${pid}). Close that client first, ${other}`;
    case 'origin':
      return `moorage is running already: "moorage origin run" (process ${pid}). Stop it first, ${other}`;
    case 'program':
      return `moorage is running already, inside a program (process ${pid}). Close that router first, ${other}`;
  }
}

/** @returns false when there was nothing to move. */
function moved(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** @returns false when somebody else's file is there. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** The keys of this folder, made when they are not there. @throws RouterError `state_damaged`. */
export async function loadKeys(dir: string): Promise<Keys> {
  const file = join(dir, 'keys.json');
  const stored = readJson(file);
  if (stored !== undefined) {
    const parsed = keysSchema.safeParse(stored);
    if (!parsed.success)
      throw new RouterError(
        'state_damaged',
        'keys.json in the state folder is damaged. Restore it, or remove it to make new keys (open sessions end).',
      );
    return parsed.data;
  }
  const [edge, origin] = await Promise.all([makeKey(), makeKey()]);
  const keys = { edge, origin, sessionSecret: randomBytes(32).toString('base64url') };
  writeAtomically(file, keys);
  return keys;
}

/**
 * Takes one of the two steps in which the edge's key is exchanged: `prepare` makes the key that will follow, `finish` lets it
 * follow. Each takes effect at the next start. @throws RouterError `state_damaged`; `unprepared` when there is none to follow.
 */
export async function rotateEdgeKey(dir: string, step: 'prepare' | 'finish'): Promise<void> {
  const { nextEdge, ...keys } = await loadKeys(dir);
  if (step === 'prepare') {
    writeAtomically(join(dir, 'keys.json'), { ...keys, nextEdge: nextEdge ?? (await makeKey()) });
    return;
  }
  if (nextEdge === undefined) {
    throw new RouterError(
      'unprepared',
      'No key was prepared. Run "moorage keys rotate" first, and restart the router.',
    );
  }
  writeAtomically(join(dir, 'keys.json'), { ...keys, edge: nextEdge });
}

export const hasOwnerKey = (dir: string): boolean => existsSync(join(dir, 'owner.json'));

/**
 * The owner's key of this folder, made when it is not there. The edge has its public half only.
 * @throws RouterError `state_damaged`.
 */
export async function loadOwnerKey(dir: string): Promise<JWK> {
  const file = join(dir, 'owner.json');
  const stored = readJson(file);
  if (stored === undefined) {
    const key = await makeKey();
    writeAtomically(file, key);
    return key;
  }
  const parsed = jwk.safeParse(stored);
  if (parsed.success) return parsed.data;
  throw new RouterError('state_damaged', 'owner.json in the state folder is damaged. Remove it to make a new key.');
}

/**
 * Path of one of the folder's Unix sockets: the agent's for the edge, or the one for its owner. Such a path has at most
 * 107 bytes, so for a deep state folder it lies in the user's runtime folder. @throws RouterError `state_damaged` when that folder belongs to somebody else.
 */
export function socketPath(dir: string, name: 'origin.sock' | 'control.sock' | 'edge.sock'): string {
  const near = join(dir, name);
  if (Buffer.byteLength(near) < 104) return near;
  const digest = createHash('sha256').update(dir).digest('hex').slice(0, 16);
  const folder = join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), `moorage-${digest}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { uid, mode } = lstatSync(folder);
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0) {
    throw new RouterError(
      'state_damaged',
      'The folder for the socket in the temporary folder belongs to somebody else. Set XDG_RUNTIME_DIR.',
    );
  }
  return join(folder, name);
}

export async function makeKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  return await exportJWK(privateKey);
}

export function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    // Present and unreadable is not the same as absent: the caller's schema refuses null.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

export function writeAtomically(file: string, value: unknown): void {
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600 });
  renameSync(draft, file);
}
