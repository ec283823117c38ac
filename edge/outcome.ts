/**
 * Owns how an expected failure crosses from an object to its caller.
 *
 * Errors thrown through Workers RPC keep their message and lose their code, so the objects answer with values.
 */
import { type ErrorBody, type ErrorCode, MoorageError, toErrorBody } from '../shared/errors.ts';

export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: OutcomeError };

/** `ErrorBody.error`, its data as JSON text: structured clones of unknown data are not worth typing. */
interface OutcomeError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly data: string;
}

/** Runs `decide`; an expected failure becomes a value, a bug stays an exception. */
export async function outcomeOf<T>(decide: () => Promise<T> | T): Promise<Outcome<T>> {
  try {
    return { ok: true, value: await decide() };
  } catch (thrown) {
    if (!(thrown instanceof MoorageError)) throw thrown;
    const { code, message, data }: ErrorBody['error'] = toErrorBody(thrown).error;
    return { ok: false, error: { code, message, data: JSON.stringify(data) } };
  }
}

/** The value, or the failure thrown anew on the caller's side. */
export function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  const { code, message, data } = outcome.error;
  throw new MoorageError(code, message, JSON.parse(data) as Record<string, unknown>);
}
