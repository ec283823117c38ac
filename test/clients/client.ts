/**
 * What each real client is asked to do: connect, list the tools, call one, leave.
 */
export interface Call {
  tool: string;
  args: Record<string, string>;
}

/** What a client can tell; one that only connects tells nothing. */
export interface Outcome {
  tools?: string[];
  /** The text blocks of the call's result, joined by line feeds. */
  text?: string;
}

export interface RunOptions {
  /** Sent with every HTTP request, for a server that wants a token. */
  headers?: Record<string, string>;
}

export type Run = (url: string, call: Call, options?: RunOptions) => Promise<Outcome>;

/** Thrown by a client that this machine cannot run: it is skipped, not failed. */
export class Unavailable extends Error {
  override readonly name = 'Unavailable';
}

interface Block {
  type: string;
  text?: string | undefined;
}

/** Every client prints or returns results in the shape of the protocol, so one reader serves them all. */
export function textOf(result: unknown): string {
  const { content = [], isError } = result as { content?: Block[]; isError?: boolean };
  const text = content.flatMap((block) => (block.type === 'text' ? [block.text ?? ''] : [])).join('\n');
  if (isError) throw new Error(text || 'The tool failed');
  return text;
}

export function namesOf(result: unknown): string[] {
  const { tools = [] } = result as { tools?: { name: string }[] };
  return tools.map((tool) => tool.name);
}

/** `found`, or the error that a client deserves whose list lacks the tool. */
export function present<T>(found: T | undefined, tool: string, listed: readonly string[]): T {
  if (found === undefined) throw new Error(`The client does not list "${tool}" but: ${listed.join(', ')}`);
  return found;
}
