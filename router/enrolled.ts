/**
 * Owns what an origin knows of the edge where it was enrolled: `origin.json` of its state folder, how it comes to be there
 * (`shared/enrolment.ts`), and how this origin's key is changed.
 *
 * Invariants: the edge's key is pinned only when it is the one that the code names; while a key is being changed both are in
 * the file, so a crash at any moment leaves one that the edge takes.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { JWK } from 'jose';
import { z } from 'zod';
import {
  ENROL_PATH,
  enrolAnswer,
  fingerprintOf,
  originId,
  type PublicKey,
  parseCode,
  publicKey,
  ROTATE_PATH,
} from '../shared/enrolment.ts';
import { fromErrorBody, MoorageError } from '../shared/errors.ts';
import { importKey, signLinkToken } from '../shared/grant.ts';
import { ORIGIN_HEADER } from '../shared/link.ts';
import { edgeAccessHeaders, noAnswer, notOfEdge } from './edge-access.ts';
import { RouterError } from './error.ts';
import { makeKey, publicHalf, readJson, writeAtomically } from './state.ts';

const ANSWER_WITHIN_MS = 30_000;

const privateKey = publicKey.extend({ d: z.string() });
const enrolledSchema = z.object({
  id: originId,
  edgeUrl: z.url(),
  key: privateKey,
  /** The key that was about to follow when this was written. */
  nextKey: privateKey.optional(),
  edgeKeys: z.array(publicKey).min(1).max(2),
});

export type Enrolled = Readonly<z.infer<typeof enrolledSchema>>;

const fileOf = (stateDir: string): string => join(stateDir, 'origin.json');

/** @throws RouterError `not_enrolled`, `state_damaged`. */
export function loadEnrolled(stateDir: string): Enrolled {
  const stored = readJson(fileOf(stateDir));
  if (stored === undefined) {
    throw new RouterError(
      'not_enrolled',
      'This origin belongs to no edge. Run "moorage origin join <edge-url> --code CODE" first.',
    );
  }
  const parsed = enrolledSchema.safeParse(stored);
  if (parsed.success) return parsed.data;
  throw new RouterError('state_damaged', 'origin.json in the state folder is damaged. Remove it and join again.');
}

/** Pins other keys of the edge from now on. */
export function saveEdgeKeys(stateDir: string, edgeKeys: readonly PublicKey[]): void {
  writeAtomically(fileOf(stateDir), { ...loadEnrolled(stateDir), edgeKeys });
}

/** Enrols this origin. @throws RouterError `bad_code`, `edge_away`, `edge_refused`, `no_edge`; MoorageError with what the edge says. */
export async function enrol(stateDir: string, edgeUrl: URL, text: string): Promise<Enrolled> {
  const code = parseCode(text);
  if (!code) throw new RouterError('bad_code', 'This is not a code of "moorage origin invite". Copy it whole.');
  mkdirSync(stateDir, { recursive: true, mode: 0o700 });
  const key = await makeKey();
  const { id, secret, fingerprint } = code;
  const answered = await post(new URL(ENROL_PATH, edgeUrl), { id, secret, key: publicHalf(key) });
  const answer = enrolAnswer.safeParse(answered);
  const [edgeKey] = answer.success ? answer.data.keys : [];
  if (!answer.success || !edgeKey || (await fingerprintOf(edgeKey)) !== fingerprint) {
    throw new RouterError(
      'bad_code',
      `What answers at ${edgeUrl.host} is not the edge that made this code: its key is another. Nothing was kept.`,
    );
  }
  const enrolled = { id, edgeUrl: edgeUrl.href, key, edgeKeys: answer.data.keys };
  writeAtomically(fileOf(stateDir), enrolled);
  return loadEnrolled(stateDir);
}

/** Changes this origin's key at the edge. A link that is open stays open. @throws MoorageError with what the edge says. */
export async function rotate(stateDir: string): Promise<void> {
  const enrolled = await settled(stateDir);
  const nextKey = await makeKey();
  writeAtomically(fileOf(stateDir), { ...enrolled, nextKey });
  await post(
    new URL(ROTATE_PATH, enrolled.edgeUrl),
    { key: publicHalf(nextKey), proof: await tokenOf(nextKey, enrolled.id) },
    { authorization: `Bearer ${await tokenOf(enrolled.key, enrolled.id)}`, [ORIGIN_HEADER]: enrolled.id },
  );
  writeAtomically(fileOf(stateDir), { ...enrolled, key: nextKey });
}

/**
 * What is enrolled, with the one key that the edge takes. A change of the key that was cut off is ended: when the edge has
 * the new key already, changing it "from the new to the new" is answered, else it is refused.
 */
export async function settled(stateDir: string): Promise<Enrolled> {
  const enrolled = loadEnrolled(stateDir);
  const { nextKey, ...rest } = enrolled;
  if (nextKey === undefined) return enrolled;
  const token = await tokenOf(nextKey, enrolled.id);
  try {
    await post(
      new URL(ROTATE_PATH, enrolled.edgeUrl),
      { key: publicHalf(nextKey), proof: token },
      { authorization: `Bearer ${token}`, [ORIGIN_HEADER]: enrolled.id },
    );
  } catch (error) {
    if (!(error instanceof MoorageError) || error.code !== 'grant_invalid') throw error;
    writeAtomically(fileOf(stateDir), rest);
    return loadEnrolled(stateDir);
  }
  writeAtomically(fileOf(stateDir), { ...rest, key: nextKey });
  return loadEnrolled(stateDir);
}

const tokenOf = async (key: JWK, id: string): Promise<string> => signLinkToken(await importKey(key), id, Date.now());

async function post(url: URL, body: unknown, headers: Record<string, string> = {}): Promise<unknown> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { ...edgeAccessHeaders(), ...headers, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    redirect: 'manual',
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
  }).catch((error: Error) => {
    throw noAnswer(url.origin, error);
  });
  if (response.status === 204) return undefined;
  const value: unknown = await response.json().catch(() => undefined);
  const problem = notOfEdge(url.host, response.status, value);
  if (problem) throw problem;
  if (!response.ok) throw fromErrorBody(value);
  return value;
}
