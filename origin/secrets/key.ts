/**
 * Owns the key that secrets are sealed with, and the sealing: AES-256-GCM, the name and place of a secret bound to it as
 * associated data, so that no row can be put in another's place.
 *
 * The key is in `secrets.key` of the state folder (0600), or, read-only, in a systemd credential named
 * `moorage-secrets-key` (`LoadCredentialEncrypted=`), which keeps it off the disk. Either is JSON
 * `{current, keys: {<id>: <32 bytes, base64>}}`, or, for a credential, 32 bytes in base64 alone. Several keys are there only
 * while they are being changed.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { lstatSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';

export const KEY_FILE = 'secrets.key';
const CREDENTIAL = 'moorage-secrets-key';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

const key = z.base64().refine((text) => Buffer.from(text, 'base64').length === KEY_BYTES);
const ringSchema = z
  .object({ current: z.string(), keys: z.record(z.string(), key) })
  .refine(({ current, keys }) => Object.hasOwn(keys, current));

export interface KeyRing {
  /** Id of the key that seals. */
  readonly current: string;
  readonly keys: ReadonlyMap<string, Buffer>;
  /** False for a credential: whoever gave it changes it. */
  readonly isOurs: boolean;
}

export interface Sealed {
  readonly key: string;
  /** Nonce, ciphertext, tag. */
  readonly box: Uint8Array;
}

/** Folder of systemd's credentials of this process, if it has some (systemd.exec(5)). */
export const credentialsFolder = (): string | undefined => process.env.CREDENTIALS_DIRECTORY;

/** The keys; undefined when there are none yet. @throws MoorageError `secrets_unusable`. */
export function loadKeys(dir: string, credentials = credentialsFolder()): KeyRing | undefined {
  const given = credentials === undefined ? undefined : read(join(credentials, CREDENTIAL));
  if (given !== undefined) return { ...parse(given.trim(), `the credential ${CREDENTIAL}`), isOurs: false };
  const path = join(dir, KEY_FILE);
  const text = read(path);
  if (text === undefined) return undefined;
  if ((lstatSync(path).mode & 0o077) !== 0)
    throw unusable(`${KEY_FILE} in the state folder can be read by others: chmod 600 it, and change the key`);
  return { ...parse(text, `${KEY_FILE} in the state folder`), isOurs: true };
}

/** A ring with a fresh key as its current one. */
export function withFreshKey(ring: KeyRing | undefined): KeyRing {
  const id = randomBytes(6).toString('hex');
  return { current: id, keys: new Map([...(ring?.keys ?? []), [id, randomBytes(KEY_BYTES)]]), isOurs: true };
}

/** The ring with its current key alone. */
export function withoutOldKeys({ current, keys, isOurs }: KeyRing): KeyRing {
  return { current, keys: new Map([...keys].filter(([id]) => id === current)), isOurs };
}

export function storeKeys(dir: string, { current, keys }: KeyRing): void {
  const path = join(dir, KEY_FILE);
  const encoded = Object.fromEntries([...keys].map(([id, bytes]) => [id, bytes.toString('base64')]));
  writeFileSync(`${path}.new`, `${JSON.stringify({ current, keys: encoded })}\n`, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
}

/** Seals a value for what `bound` says; it opens for the same alone. */
export function seal({ current, keys }: KeyRing, value: string, bound: readonly string[]): Sealed {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keys.get(current) as Buffer, nonce);
  cipher.setAAD(associated(current, bound));
  const box = Buffer.concat([nonce, cipher.update(value, 'utf8'), cipher.final(), cipher.getAuthTag()]);
  return { key: current, box };
}

/** @throws MoorageError `secrets_unusable` when it was sealed by another key, for something else, or was altered. */
export function unseal({ keys }: KeyRing, { key: id, box }: Sealed, bound: readonly string[]): string {
  const bytes = keys.get(id);
  if (bytes === undefined)
    throw unusable(`they were sealed with another key than ${KEY_FILE} holds: restore that file`);
  try {
    const decipher = createDecipheriv('aes-256-gcm', bytes, box.subarray(0, NONCE_BYTES));
    decipher.setAAD(associated(id, bound));
    decipher.setAuthTag(box.subarray(-TAG_BYTES));
    const plain = decipher.update(box.subarray(NONCE_BYTES, -TAG_BYTES));
    return Buffer.concat([plain, decipher.final()]).toString('utf8');
  } catch {
    throw unusable(`the secret ${bound[0]} was damaged or altered: set it again`);
  }
}

export const unusable = (why: string): MoorageError =>
  new MoorageError('secrets_unusable', `The secrets of this origin cannot be used: ${why}.`);

const associated = (id: string, bound: readonly string[]): Buffer =>
  Buffer.from(JSON.stringify(['moorage secret 1', id, ...bound]));

function parse(text: string, where: string): Omit<KeyRing, 'isOurs'> {
  if (key.safeParse(text).success) {
    const bytes = Buffer.from(text, 'base64');
    const id = createHash('sha256').update(bytes).digest('hex').slice(0, 12);
    return { current: id, keys: new Map([[id, bytes]]) };
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const ring = ringSchema.safeParse(value);
  if (!ring.success) throw unusable(`${where} is damaged: restore it, or remove it and secrets.db and set them again`);
  const { current, keys } = ring.data;
  return { current, keys: new Map(Object.entries(keys).map(([id, encoded]) => [id, Buffer.from(encoded, 'base64')])) };
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
