/** Owns the HTTP status under which an answer of the stateless era leaves, when it is one JSON-RPC message. */
import { modernStatus } from '../../shared/rev-2026-07-28.ts';

/** Answers up to this size are read for the code of their error; a larger one is a result. */
const MAX_ERROR_BYTES = 64 * 1024;

/** An answer under the status that its error code asks for (2026-07-28, basic/transports/streamable-http). */
export async function withStatus(answer: Response): Promise<Response> {
  const bytes = await answer.arrayBuffer();
  const status = bytes.byteLength > MAX_ERROR_BYTES ? 200 : statusOf(new TextDecoder().decode(bytes));
  return new Response(bytes, { status, headers: answer.headers });
}

function statusOf(text: string): number {
  try {
    const code = (JSON.parse(text) as { error?: { code?: unknown } } | null)?.error?.code;
    return typeof code === 'number' ? modernStatus(code) : 200;
  } catch {
    // Not JSON: the client is told so by its own reader, as it would be without us.
    return 200;
  }
}
