/** Owns how large a server's result may be: a larger one is an error that says so, and what to do. */
import { MoorageError } from '../../shared/errors.ts';
import { failure } from '../../shared/jsonrpc.ts';
import type { Rewriting } from './rewrite.ts';

/** Refuses results beyond `max` bytes. */
export const bounded = (max: number): Rewriting => ({
  concerns: (text) => bytesBeyond(text, max) !== undefined,
  rewrite: (message, text) => {
    const bytes = bytesBeyond(text, max);
    if (bytes === undefined || !('result' in message)) return message;
    return failure(
      message.id,
      new MoorageError(
        'result_too_large',
        `The result has ${bytes} bytes, and ${max} are passed on. Ask for less: a page, a range, a narrower search.`,
        { bytes, maxBytes: max },
      ),
    );
  },
});

/** The size of a text, where it exceeds `max`: a UTF-16 unit has three bytes at most. */
function bytesBeyond(text: string, max: number): number | undefined {
  if (text.length * 3 <= max) return undefined;
  const bytes = new TextEncoder().encode(text).byteLength;
  return bytes > max ? bytes : undefined;
}
