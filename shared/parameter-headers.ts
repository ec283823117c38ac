/**
 * Owns the headers that repeat arguments of a tool: its schema names them in `x-mcp-header`, HTTP carries them as
 * `Mcp-Param-*` (2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters"). Who sends a call
 * over HTTP owes them; who takes one and reads its body checks them.
 *
 * What tools ask for is learned from the lists that pass. A tool that was never listed gets no headers; where it needs
 * them, the server's error says so and the client lists anew.
 */
import { z } from 'zod';
import type { MoorageError } from './errors.ts';
import { roundedOf } from './exact-json.ts';
import { type JsonRpcRequest, nameFrom } from './jsonrpc.ts';
import {
  decodeHeaderValue,
  encodeHeaderValue,
  type HeaderReader,
  mismatch,
  PARAM_HEADER_PREFIX,
} from './mirrored-headers.ts';

interface Declaration {
  readonly path: readonly string[];
  readonly header: string;
}

const toolList = z.object({ tools: z.array(z.object({ name: z.string(), inputSchema: z.unknown() })) });
/** Where a property of a primitive type asks for its value; a chain of `properties` leads there. */
const property = z.looseObject({
  type: z.unknown().optional(),
  'x-mcp-header': z
    .string()
    .regex(/^[\w!#$%&'*+.^`|~-]+$/)
    .optional(),
  properties: z.record(z.string(), z.unknown()).optional(),
});
const PRIMITIVE: readonly unknown[] = ['string', 'integer', 'boolean', 'number'];

export class ParameterHeaders {
  readonly #tools = new Map<string, readonly Declaration[]>();

  /** Takes the result of a `tools/list`. */
  learn(result: unknown): void {
    const list = toolList.safeParse(result);
    for (const { name, inputSchema } of list.data?.tools ?? []) this.#tools.set(name, declarations(inputSchema, []));
  }

  /** The headers for a `tools/call`; none for anything else. */
  of({ method, params }: JsonRpcRequest): Record<string, string> {
    const declared = method === 'tools/call' ? this.#tools.get(nameFrom(params?.name)) : undefined;
    const headers: Record<string, string> = {};
    for (const { path, header } of declared ?? []) {
      const value = valueAt(params?.arguments, path);
      if (value !== undefined) headers[`${PARAM_HEADER_PREFIX}${header}`] = encodeHeaderValue(String(value));
    }
    return headers;
  }

  /** Whether a tool was in a list that was learned. */
  knows({ params }: JsonRpcRequest): boolean {
    return this.#tools.has(nameFrom(params?.name));
  }

  /** Why the headers of a `tools/call` do not agree with its arguments, or nothing when they do. */
  mismatch({ params }: JsonRpcRequest, header: HeaderReader): MoorageError | undefined {
    for (const { path, header: named } of this.#tools.get(nameFrom(params?.name)) ?? []) {
      const value = valueAt(params?.arguments, path);
      if (value === undefined) continue;
      const name = `${PARAM_HEADER_PREFIX}${named.toLowerCase()}`;
      const sent = header(name);
      if (sent === null || sent === undefined) return mismatch(name, 'it is missing');
      const said = decodeHeaderValue(sent);
      if (said === undefined) return mismatch(name, 'its value cannot be decoded');
      // Numbers are compared as numbers: 42.0 is 42 ("Server Validation").
      const isSame = typeof value === 'number' && DECIMAL.test(said) ? Number(said) === value : said === String(value);
      if (!isSame) return mismatch(name, 'it differs from the body');
    }
    return undefined;
  }
}

const DECIMAL = /^-?\d+(\.\d+)?$/;

/** The value that a header repeats: only what text writes exactly. */
function valueAt(args: unknown, path: readonly string[]): string | number | boolean | undefined {
  const found = path.reduce<unknown>(
    (node, key) => (isObject(node) && Object.hasOwn(node, key) ? node[key] : undefined),
    args,
  );
  const value = roundedOf(found);
  if (typeof value === 'number') return Number.isFinite(value) ? value : undefined;
  return typeof value === 'string' || typeof value === 'boolean' ? value : undefined;
}

function declarations(schema: unknown, path: readonly string[]): Declaration[] {
  const { data } = property.safeParse(schema);
  if (!data) return [];
  const header = data['x-mcp-header'];
  const own = header !== undefined && path.length > 0 && PRIMITIVE.includes(data.type) ? [{ path, header }] : [];
  const inner = Object.entries(data.properties ?? {}).flatMap(([key, child]) => declarations(child, [...path, key]));
  return [...own, ...inner];
}

const isObject = (value: unknown): value is Record<string, unknown> => value !== null && typeof value === 'object';
