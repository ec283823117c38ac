/** Owns how a body of administration is read: bounded, and by its schema. */
import type { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';
import { readBounded } from '../read-message.ts';

const MAX_BODY_BYTES = 1024 * 1024;

/** @throws MoorageError `body_too_large`, `parse_error`, `invalid_params` with the member at fault. */
export async function bodyOf<T>(request: Request, schema: z.ZodType<T>): Promise<T> {
  const bytes = await readBounded(request, MAX_BODY_BYTES);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new MoorageError('parse_error', 'The body is not JSON.');
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new MoorageError('invalid_params', `"${issue?.path.join('.')}": ${issue?.message}.`);
}
