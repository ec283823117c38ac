/**
 * Owns the arguments of a tool that a client repeats in headers, `Mcp-Param-*`: which ones the tool's schema names in
 * `x-mcp-header`, and that header and body agree (2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool
 * Parameters"). Pure.
 *
 * Headers that no schema names are nobody's here: they pass untouched.
 */
import { MoorageError } from '../../shared/errors.ts';
import { nameFrom } from '../../shared/jsonrpc.ts';
import { decodeHeaderValue, type HeaderReader, PARAM_HEADER_PREFIX } from '../../shared/mirrored-headers.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';

/** An argument that travels in a header too. */
export interface Parameter {
  /** What follows `Mcp-Param-`, in lower case. */
  readonly header: string;
  /** Where the value is within `arguments`. */
  readonly path: readonly string[];
}

/** A tool with its parameters; none where it names none. */
export interface DeclaredTool {
  readonly tool: string;
  readonly parameters: readonly Parameter[];
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
const PRIMITIVE: ReadonlySet<unknown> = new Set(['string', 'integer', 'boolean']);
const DECIMAL = /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/;
/** What one schema may name, and how deep it is looked through. */
const MAX_PARAMETERS = 64;
const MAX_LEVELS = 16;

/** The tools in a result of `tools/list`. */
export function declaredIn(result: Readonly<Record<string, unknown>>): DeclaredTool[] {
  const tools = Array.isArray(result.tools) ? result.tools.filter(isRecord) : [];
  return tools.flatMap(({ name, inputSchema }) =>
    typeof name === 'string' && name.length <= 1024 ? [{ tool: name, parameters: parametersOf(inputSchema) }] : [],
  );
}

/** The parameters of a schema. One that breaks a rule of theirs is no tool that a client may use: it names none. */
export function parametersOf(schema: unknown): Parameter[] {
  const found: Parameter[] = [];
  let valid = true;
  const walk = (node: unknown, path: readonly string[]): void => {
    if (!isRecord(node) || !isRecord(node.properties) || path.length >= MAX_LEVELS) return;
    for (const [key, property] of Object.entries(node.properties)) {
      if (!isRecord(property)) continue;
      const header = property['x-mcp-header'];
      if (header !== undefined) {
        valid &&= typeof header === 'string' && TOKEN.test(header) && PRIMITIVE.has(property.type);
        found.push({ header: nameFrom(header).toLowerCase(), path: [...path, key] });
      }
      walk(property, [...path, key]);
    }
  };
  walk(schema, []);
  const distinct = new Set(found.map(({ header }) => header)).size === found.length;
  return valid && distinct && found.length <= MAX_PARAMETERS ? found : [];
}

/**
 * Why headers and arguments of a call do not agree, or nothing when they do.
 * @returns MoorageError `header_mismatch`.
 */
export function parameterMismatch(
  parameters: readonly Parameter[],
  args: unknown,
  header: HeaderReader,
): MoorageError | undefined {
  for (const { header: name, path } of parameters) {
    const fullName = `${PARAM_HEADER_PREFIX}${name}`;
    const sent = header(fullName) ?? undefined;
    const said = sent === undefined ? undefined : decodeHeaderValue(sent);
    if (sent !== undefined && said === undefined) return mismatch(fullName, 'its value cannot be decoded');
    const value = path.reduce<unknown>(
      (node, key) => (isRecord(node) && Object.hasOwn(node, key) ? node[key] : undefined),
      args,
    );
    // What is no primitive is the server's to refuse.
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') continue;
    if (said === undefined) return mismatch(fullName, 'it is missing');
    const agrees = typeof value === 'number' && DECIMAL.test(said) ? Number(said) === value : said === String(value);
    if (!agrees) return mismatch(fullName, 'it differs from the body');
  }
  return undefined;
}

const mismatch = (header: string, why: string): MoorageError =>
  new MoorageError('header_mismatch', `The header "${header}" and the arguments must agree: ${why}.`, { header });
