/**
 * Owns the state folder of `moorage up`: who may use it (one at a time), its keys, and where its socket lies.
 *
 * | File | What |
 * |---|---|
 * | `keys.json` | private keys of the local edge and origin (Ed25519 JWKs) and the secret of session ids; 0600 |
 * | `up.json` | process id and start time of the `moorage up` that uses the folder |
 * | `edge/` | the edge: its bundle and its Durable Objects' storage |
 * | `streams.db` | the agent's journal: streams that clients may resume |
 * | `machines/<key>/` | one folder a machine: its disk |
 * | `logs/` | the owner's log |
 */
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportJWK, generateKeyPair, type JWK } from 'jose';
import { z } from 'zod';
import { processStart } from '../origin/vm/pid.ts';

/** A message for the person at the terminal; never a stack. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

const jwk = z.looseObject({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: z.string(), d: z.string() });
const keysSchema = z.object({ edge: jwk, origin: jwk, sessionSecret: z.string().min(32) });

export interface Keys {
  readonly edge: JWK;
  readonly origin: JWK;
  readonly sessionSecret: string;
}

/** The public half of a private JWK. */
export function publicHalf({ d: _private, ...rest }: JWK): JWK {
  return rest;
}

/** Makes the folder (0700) and takes it for this process. @throws UsageError when a running `moorage up` has it. */
export function takeState(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  chmodSync(dir, 0o700);
  const file = join(dir, 'up.json');
  const holder = z.object({ pid: z.number(), start: z.string() }).safeParse(readJson(file));
  if (holder.success && holder.data.pid !== process.pid && processStart(holder.data.pid) === holder.data.start) {
    throw new UsageError(
      `moorage is running already (process ${holder.data.pid}). Stop it first, or choose another folder with --state.`,
    );
  }
  writeAtomically(file, { pid: process.pid, start: processStart(process.pid) ?? '' });
}

/** Gives the folder back. */
export function releaseState(dir: string): void {
  rmSync(join(dir, 'up.json'), { force: true });
}

/** The keys of this folder, made when they are not there. @throws UsageError when the file was damaged. */
export async function loadKeys(dir: string): Promise<Keys> {
  const file = join(dir, 'keys.json');
  const stored = readJson(file);
  if (stored !== undefined) {
    const parsed = keysSchema.safeParse(stored);
    if (!parsed.success)
      throw new UsageError(
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
 * Path of the agent's Unix socket. Such a path has at most 107 bytes, so for a deep state folder it lies in the
 * user's runtime folder. @throws UsageError when that folder belongs to somebody else.
 */
export function socketPath(dir: string): string {
  const near = join(dir, 'origin.sock');
  if (Buffer.byteLength(near) < 104) return near;
  const digest = createHash('sha256').update(dir).digest('hex').slice(0, 16);
  const folder = join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), `moorage-${digest}`);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { uid, mode } = lstatSync(folder);
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0) {
    throw new UsageError(
      'The folder for the socket in the temporary folder belongs to somebody else. Set XDG_RUNTIME_DIR.',
    );
  }
  return join(folder, 'origin.sock');
}

async function makeKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  return await exportJWK(privateKey);
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    // Present and unreadable is not the same as absent: the caller's schema refuses null.
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

function writeAtomically(file: string, value: unknown): void {
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o600 });
  renameSync(draft, file);
}
