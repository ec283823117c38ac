/**
 * Owns how names of many servers live together at `/mcp`. Pure.
 *
 * A tool or prompt `echo` of server `everything` is `everything__echo`. Clients and models take 64 characters of
 * `[A-Za-z0-9_-]`, so a name that would not fit, or could be read in two ways, is cut and gets eight hexadecimal digits
 * of the SHA-256 of (server, name): the same name every time, whatever other servers there are. A resource `file:///a` of
 * server `notes` is `notes+file:///a` (RFC 3986, section 3.1: a scheme may hold "+").
 *
 * Invariants: exposing is a function of server and name alone; an exact name is read back without asking anybody.
 */

/** What clients of models accept (OpenAI and Anthropic tool names: `^[a-zA-Z0-9_-]{1,64}$`). */
export const MAX_NAME = 64;
const SEPARATOR = '__';
const HASHED = /_[0-9a-f]{8}$/;

/** Whether names of this server can be exact: read back by splitting at the first separator. */
const isPlain = (server: string) =>
  /^[A-Za-z0-9_-]+$/.test(server) && !server.includes(SEPARATOR) && !server.endsWith('_');

/** The name of a server's tool or prompt at `/mcp`. */
export async function expose(server: string, name: string): Promise<string> {
  const whole = `${server}${SEPARATOR}${name}`;
  if (isPlain(server) && /^[A-Za-z0-9_-]+$/.test(name) && whole.length <= MAX_NAME && !HASHED.test(whole)) return whole;
  const readable = whole.replaceAll(/[^A-Za-z0-9_-]/g, '_').slice(0, MAX_NAME - 9);
  return `${readable}_${await digest(`${server}\0${name}`)}`;
}

/** An exposed name read back: exactly, or as one whose server has to be asked for its list (`hashed`). */
export function readName(exposed: string): { server: string; name: string } | 'hashed' | undefined {
  if (HASHED.test(exposed)) return 'hashed';
  const at = exposed.indexOf(SEPARATOR);
  if (at <= 0 || at + SEPARATOR.length >= exposed.length) return undefined;
  return { server: exposed.slice(0, at), name: exposed.slice(at + SEPARATOR.length) };
}

/** Servers that a hashed name may be of: those whose readable prefix it has. */
export function candidates(exposed: string, servers: readonly string[]): string[] {
  return servers.filter((server) => {
    const prefix = `${server}${SEPARATOR}`.replaceAll(/[^A-Za-z0-9_-]/g, '_').slice(0, MAX_NAME - 9);
    return exposed.startsWith(prefix);
  });
}

/** The scheme prefix of a server's resources, without "+". Lower case: schemes are compared so. */
async function scheme(server: string): Promise<string> {
  if (/^[a-z][a-z0-9.-]*$/.test(server)) return server;
  const readable = server
    .toLowerCase()
    .replaceAll(/[^a-z0-9.-]/g, '-')
    .replace(/^[^a-z]/, 's');
  return `${readable}-${await digest(server)}`;
}

/** URIs of resources in both directions, for a fixed set of servers. */
export class UriNames {
  readonly #schemes: ReadonlyMap<string, string>;
  readonly #servers: ReadonlyMap<string, string>;

  private constructor(pairs: readonly (readonly [string, string])[]) {
    this.#schemes = new Map(pairs);
    this.#servers = new Map(pairs.map(([server, name]) => [name, server]));
  }

  static async of(servers: readonly string[]): Promise<UriNames> {
    return new UriNames(await Promise.all(servers.map(async (server) => [server, await scheme(server)] as const)));
  }

  /** A server's URI, or URI template, at `/mcp`. */
  expose(server: string, uri: string): string {
    return `${this.#schemes.get(server) ?? server}+${uri}`;
  }

  /** Whose URI it is, as that server knows it; undefined for one that was never exposed. */
  read(uri: string): { server: string; uri: string } | undefined {
    const at = uri.indexOf('+');
    const server = this.#servers.get(uri.slice(0, Math.max(at, 0)));
    return server === undefined ? undefined : { server, uri: uri.slice(at + 1) };
  }
}

async function digest(text: string): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)));
  return [...bytes.subarray(0, 4)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
