/** Owns what an MCP client is told about a router: one URL a server. Pure. */
import type { Config } from '../shared/config.ts';

/** `mcpServers` for a client that speaks Streamable HTTP. */
export interface ClientConfig {
  readonly mcpServers: Readonly<Record<string, { readonly type: 'http'; readonly url: string }>>;
}

/** `base` is the router's URL as its clients see it, without a slash at its end. */
export function clientConfig(config: Config, base: string): ClientConfig {
  const entries = [...config.servers.keys()].map((name) => [name, { type: 'http', url: `${base}/${name}/mcp` }]);
  return { mcpServers: Object.fromEntries(entries) };
}
