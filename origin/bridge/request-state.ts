/**
 * Owns `requestState`: what a client carries from an `input_required` to its retry (2026-07-28, basic/patterns/mrtr).
 *
 * The client is not trusted with it: it is sealed (AES-256-GCM) with a key that lives as long as this agent, and bound to
 * the principal, the lane and the request, so that it opens for nobody else and for nothing else. What it seals names a
 * waiting call and its round, and when it expires. Single use is the waiting call's concern (`park.ts`).
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { MoorageError } from '../../shared/errors.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';

const CIPHER = 'aes-256-gcm';
const IV_BYTES = 12;
const TAG_BYTES = 16;
/** Longest state that is looked at. Ours are shorter. */
const MAX_LENGTH = 1024;

/** `call` is absent where nothing waits and the request is simply sent again. */
export interface Sealed {
  readonly call?: string;
  readonly round: number;
  /** Milliseconds since the epoch. */
  readonly expires: number;
}

/** Who may present a state, and with what. */
export interface Binding {
  readonly principal: string;
  readonly lane: string;
  readonly request: { readonly method: string; readonly params?: Readonly<Record<string, unknown>> | undefined };
}

export class RequestStates {
  readonly #key: Buffer;

  constructor(key: Buffer = randomBytes(32)) {
    this.#key = key;
  }

  seal(sealed: Sealed, binding: Binding): string {
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv(CIPHER, this.#key, iv).setAAD(digestOf(binding));
    const body = Buffer.concat([cipher.update(JSON.stringify(sealed), 'utf8'), cipher.final()]);
    return Buffer.concat([iv, cipher.getAuthTag(), body]).toString('base64url');
  }

  /** @throws MoorageError `invalid_params`, without saying why: tampered, foreign, expired and unknown look the same. */
  open(state: unknown, binding: Binding, now: number): Sealed {
    const sealed = typeof state === 'string' && state.length <= MAX_LENGTH ? this.#decrypt(state, binding) : undefined;
    if (!sealed || sealed.expires <= now) throw badState();
    return sealed;
  }

  #decrypt(state: string, binding: Binding): Sealed | undefined {
    const bytes = Buffer.from(state, 'base64url');
    // Another spelling of the same bytes is not the state that was given out.
    if (bytes.length <= IV_BYTES + TAG_BYTES || bytes.toString('base64url') !== state) return undefined;
    try {
      const decipher = createDecipheriv(CIPHER, this.#key, bytes.subarray(0, IV_BYTES), { authTagLength: TAG_BYTES })
        .setAAD(digestOf(binding))
        .setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
      const text = Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]);
      return JSON.parse(text.toString('utf8')) as Sealed;
    } catch {
      return undefined;
    }
  }
}

export const badState = (): MoorageError =>
  new MoorageError(
    'invalid_params',
    'This "requestState" is not good for this request (any more). Send the request again without it.',
  );

/** The request without what changes from try to try. The order of members does not matter. */
function digestOf({ principal, lane, request }: Binding): Buffer {
  const { _meta, inputResponses: _responses, requestState: _state, ...params } = request.params ?? {};
  return createHash('sha256')
    .update(JSON.stringify([principal, lane, request.method, ordered(params)]))
    .digest();
}

function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered);
  if (!isRecord(value)) return value;
  // Wrapped, so that no array of the request looks like an object of it.
  return {
    members: Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, each]) => [key, ordered(each)]),
  };
}
