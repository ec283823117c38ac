/**
 * Owns `moorage stdio <server>`: an entry of the configuration, served to the MCP client that started this process.
 *
 * stdout carries the protocol and nothing else; everything for a person goes to stderr.
 */
import { dirname, resolve } from 'node:path';
import { PassThrough } from 'node:stream';
import { StdioServerTransport } from '@modelcontextprotocol/server/stdio';
import { printable } from '../../origin/log.ts';
import { edgeAccessHeaders } from '../../router/edge-access.ts';
import { serverName } from '../../shared/config/name.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import { type Command, textOf } from '../command.ts';
import { readConfig } from '../config-file.ts';
import { stateDirOf } from '../control.ts';
import { UsageError } from '../usage.ts';
import { localPlace, type Place, remotePlace } from './place.ts';
import { Relay } from './relay.ts';
import { reasonOf } from './remote.ts';

export const command: Command = {
  usage: `stdio <server> [--url URL]

Serves one configured server to the MCP client that starts this command, over stdin and stdout.

  --url URL  the server is behind this router, such as https://mcp.example.com. Without it:
             behind the router that runs here ("moorage up"), or behind one that is started
             for this client.

A token for a router that asks for one is read from MOORAGE_TOKEN.
`,
  options: { url: { type: 'string' } },
  run: async (input) => {
    const [server, ...more] = input.positionals;
    if (server === undefined) throw new UsageError('Which server? Say "moorage stdio <server>".');
    if (more.length > 0) throw new UsageError('"moorage stdio" takes one server. See "moorage help stdio".');
    return await stdio({ server, config: input.config, state: input.state, url: textOf(input, 'url') });
  },
};

export interface StdioOptions {
  readonly server: string;
  readonly config: string;
  readonly state: string | undefined;
  /** Base URL of a router elsewhere. The configuration is not read then. */
  readonly url: string | undefined;
}

/** Requests that are open when the client closes stdin get this long, in milliseconds. */
const FINISH_WITHIN_MS = 30_000;

/**
 * Serves until the client closes stdin, or SIGINT or SIGTERM. @returns the exit code.
 * @throws UsageError (no such server), ConfigError.
 */
export async function stdio(options: StdioOptions): Promise<number> {
  const log = (line: string) => void process.stderr.write(`moorage: ${printable(line)}\n`);
  const place = options.url === undefined ? local(options, log) : remote(options.url, options.server);
  const ended = Promise.withResolvers<void>();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ended.resolve());

  // The transport ends with its input and drops what it still owes; so it gets one that does not end.
  const input = new PassThrough();
  const transport = new StdioServerTransport(input, process.stdout, { maxBufferSize: 2 * MAX_MESSAGE_BYTES });
  const relay = new Relay({
    server: options.server,
    locate: () => place.locate(),
    headers: {
      ...(options.url === undefined ? {} : edgeAccessHeaders()),
      ...(process.env.MOORAGE_TOKEN ? { authorization: `Bearer ${process.env.MOORAGE_TOKEN}` } : {}),
    },
    toClient: (message) => {
      transport.send(message as Parameters<typeof transport.send>[0]).catch(() => ended.resolve());
    },
    log,
  });
  transport.onmessage = (message) => relay.receive(message as JsonRpcMessage);
  transport.onerror = (error) => log(`the client sent what is not a message: ${error.message.slice(0, 200)}`);
  transport.onclose = () => ended.resolve();
  await transport.start();
  let late: ReturnType<typeof setTimeout> | undefined;
  process.stdin.once('close', () => {
    late = setTimeout(() => ended.resolve(), FINISH_WITHIN_MS);
    setImmediate(() => void relay.idle().then(() => ended.resolve()));
  });
  process.stdin.pipe(input, { end: false });
  // The first request finds a router that is already there, or learns why there is none.
  place.locate().catch((error: unknown) => log(reasonOf(error)));

  await ended.promise;
  clearTimeout(late);
  await relay.end();
  await place.close();
  process.stdin.destroy();
  return 0;
}

function local(options: StdioOptions, log: (line: string) => void): Place {
  const { server, config: file } = options;
  const config = readConfig(file);
  const entry = config.servers.get(server);
  if (!entry) {
    const names = [...config.servers.keys()].map((name) => `  ${name}`).join('\n');
    throw new UsageError(`There is no server "${server}" in ${file}. It has:\n${names}`);
  }
  const configDir = dirname(resolve(file));
  return localPlace({
    config,
    options: {
      configDir,
      stateDir: stateDirOf(options),
      // Only what this server needs must be there; images are built by the first call.
      fallback: entry.runtime === 'vm' ? 'refuse' : 'skip',
      prepare: [],
      log,
    },
    log,
  });
}

function remote(url: string, server: string): Place {
  const base = URL.parse(url);
  if (!base || !/^https?:$/.test(base.protocol) || base.search !== '' || base.hash !== '') {
    throw new UsageError(`--url takes the address of a router, such as https://mcp.example.com, not "${url}".`);
  }
  if (!serverName.safeParse(server).success) throw new UsageError(`"${server}" is no name of a server.`);
  const isLocal = ['localhost', '127.0.0.1', '[::1]'].includes(base.hostname);
  const isSecret = process.env.MOORAGE_TOKEN || process.env.MOORAGE_EDGE_ACCESS;
  if (isSecret && base.protocol === 'http:' && !isLocal) {
    throw new UsageError('A token is not sent over plain http: use an https:// address.');
  }
  return remotePlace(base.href.replace(/\/$/, ''));
}
