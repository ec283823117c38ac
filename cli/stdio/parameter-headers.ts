/**
 * Owns the headers that a client of 2026-07-28 owes an HTTP server and not a stdio server: arguments of a tool that its
 * schema names in `x-mcp-header`, repeated as `Mcp-Param-*` (2026-07-28, basic/transports, "Request Metadata").
 *
 * What tools ask for is learned from the lists that pass. A tool that was never listed gets no headers; where it needs
 * them, the server's error says so and the client lists anew.
 */
import { z } from 'zod';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { encodeHeaderValue, PARAM_HEADER_PREFIX } from '../../shared/mirrored-headers.ts';

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
    const declared = method === 'tools/call' ? this.#tools.get(String(params?.name)) : undefined;
    const headers: Record<string, string> = {};
    for (const { path, header } of declared ?? []) {
      const value = path.reduce<unknown>((node, key) => (isObject(node) ? node[key] : undefined), params?.arguments);
      const isExact = typeof value === 'string' || typeof value === 'boolean' || Number.isFinite(value);
      if (isExact) headers[`${PARAM_HEADER_PREFIX}${header}`] = encodeHeaderValue(String(value));
    }
    return headers;
  }
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
