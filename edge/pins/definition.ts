/**
 * Owns what of a tool is its definition: what a model goes by when it decides to call it. Pure.
 *
 * Not part of it: what clients of one era see otherwise than those of another (`origin/bridge/to-legacy.ts` wraps or leaves out
 * output schemas that are no objects), icons, `_meta`.
 */
import { DEFINING } from '../../shared/pins.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';

/** A tool as it was listed. */
export interface Definition {
  readonly name: string;
  /** Hexadecimal SHA-256 of the definition. */
  readonly digest: string;
  /** The whole tool as JSON text. */
  readonly text: string;
}

/** The tools of a result of `tools/list`; those without a name are none. */
export async function definitionsIn(tools: readonly unknown[]): Promise<Definition[]> {
  const named = tools.filter((tool): tool is { name: string } => isRecord(tool) && typeof tool.name === 'string');
  return await Promise.all(
    named.map(async (tool) => ({ name: tool.name, digest: await digestOf(tool), text: JSON.stringify(tool) })),
  );
}

async function digestOf(tool: Readonly<Record<string, unknown>>): Promise<string> {
  const parts = DEFINING.map((part) => (part === 'outputSchema' ? plainOutput(tool[part]) : tool[part]) ?? null);
  const bytes = new TextEncoder().encode(JSON.stringify([tool.name, ...parts], sorted));
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The same for clients of both eras. */
function plainOutput(schema: unknown): unknown {
  if (!isRecord(schema)) return schema;
  if (schema.type !== 'object') return JSON.stringify(schema).includes('"$ref"') ? undefined : schema;
  const { properties, required } = schema;
  const wrapped =
    Object.keys(schema).length === 3 &&
    isRecord(properties) &&
    Object.keys(properties).join() === 'result' &&
    Array.isArray(required) &&
    required.join() === 'result';
  return wrapped ? properties.result : schema;
}

/** Members in one order, whatever the server's. */
function sorted(_key: string, value: unknown): unknown {
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
