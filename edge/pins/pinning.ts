/**
 * Owns what becomes of tools that change at run time (a "rug pull": a server is approved for what it says of its tools, and then
 * says something else). With `hold` clients see each tool as it was accepted, no tool that was added, and calls of either are
 * refused until their owner accepts them (`moorage tools accept`). With `warn` everything passes, with a word about it.
 */
import { MoorageError } from '../../shared/errors.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import { isRequest, type JsonRpcMessage, nameFrom } from '../../shared/jsonrpc.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';
import { directoryOf } from '../directory/object.ts';
import type { Env } from '../env.ts';
import type { Rewriting } from '../guard/rewrite.ts';
import { outputOf } from '../guard/settings.ts';
import { definitionsIn } from './definition.ts';
import type { Difference } from './pins.ts';

/** `_meta` key under which a list, or the result of a call, names tools that are not as they were accepted. */
export const CHANGED_META = 'moorage/changed';

/** Compares lists of tools with what was accepted. */
export const pinning = (env: Env, server: string, pins: 'warn' | 'hold'): Rewriting => ({
  concerns: () => true,
  rewrite: async (message) => {
    if (!('result' in message)) return message;
    const { result } = message;
    if (!Array.isArray(result.tools) || Array.isArray(result.content)) return message;
    const differences = await observed(env, server, result);
    if (differences.length === 0) return message;
    if (pins === 'hold') return { ...message, result: { ...result, tools: heldBack(result.tools, differences) } };
    const meta = isRecord(result._meta) ? result._meta : {};
    const names = differences.map(({ name }) => name);
    return { ...message, result: { ...result, _meta: { ...meta, [CHANGED_META]: names } } };
  },
});

/** Takes a page that was listed, whoever asked for it. */
export async function observed(
  env: Env,
  server: string,
  { tools, nextCursor }: Readonly<Record<string, unknown>>,
): Promise<Difference[]> {
  if (!Array.isArray(tools)) return [];
  const differences = await directoryOf(env).observeTools(
    server,
    await definitionsIn(tools),
    typeof nextCursor !== 'string',
  );
  for (const { name, change, isNew } of differences) {
    if (isNew)
      console.warn(`tool ${JSON.stringify(name)} of ${server} is ${change}: see "moorage tools diff ${server}"`);
  }
  return differences;
}

/**
 * Looks at a call of a tool. @returns what warns of one that passes all the same.
 * @throws MoorageError `tool_changed` for one that is held back.
 */
export async function checkPin(
  { env, server }: { readonly env: Env; readonly server: string },
  message: JsonRpcMessage,
): Promise<Rewriting | undefined> {
  const { pins = 'off' } = outputOf(env, server);
  if (pins === 'off' || !isRequest(message) || message.method !== 'tools/call') return undefined;
  const name = nameFrom(message.params?.name);
  const standing = await directoryOf(env).toolStanding(server, name);
  if (standing === 'accepted' || standing === 'unpinned') return undefined;
  if (pins === 'warn') return standing === 'unlisted' ? undefined : warning(name);
  throw new MoorageError(
    'tool_changed',
    `The tool "${name.slice(0, 200)}" of "${server}" is not what it was when the server was deployed, or was not listed then. It is held back until whoever runs this router accepts it ("moorage tools diff ${server}").`,
    { retryable: false },
  );
}

const warning = (name: string): Rewriting => ({
  concerns: () => true,
  rewrite: (message) => {
    if (!('result' in message)) return message;
    const meta = isRecord(message.result._meta) ? message.result._meta : {};
    return { ...message, result: { ...message.result, _meta: { ...meta, [CHANGED_META]: [name] } } };
  },
});

function heldBack(tools: readonly unknown[], differences: readonly Difference[]): unknown[] {
  const held = new Map(differences.map((difference) => [difference.name, difference]));
  return tools.flatMap((tool) => {
    const difference = isRecord(tool) && typeof tool.name === 'string' ? held.get(tool.name) : undefined;
    if (!difference) return [tool];
    return difference.accepted === null ? [] : [parseExactly(difference.accepted)];
  });
}
