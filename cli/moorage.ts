#!/usr/bin/env node
/** Owns the command line: which command is meant, its options, and exit codes (0 done, 1 failed, 2 wrong usage). */
import { parseArgs } from 'node:util';
import { DEFAULT_CONFIG } from './config-file.ts';
import { UsageError } from './usage.ts';

const HELP = `moorage: one address for all your MCP servers

Usage: moorage <command> [options]

Commands:
  up              serve the configured servers on this machine (what "npm start" does)
  stdio <server>  serve one of them to a local MCP client, over stdin and stdout
  help            show this text

Options of up and stdio:
  --config FILE  the configuration (default: moorage.jsonc)
  --state DIR    keys, disks and logs (default: .moorage beside the configuration)

Options of up:
  --port PORT    listen here instead of the configured port
  --yes          install what is missing (QEMU) without asking

Options of stdio:
  --url URL      the server is behind this router, such as https://mcp.example.com; a token
                 for it is read from MOORAGE_TOKEN. Without it: behind the router that runs
                 here ("moorage up"), or behind one that is started for this client.
`;

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      config: { type: 'string' },
      state: { type: 'string' },
      port: { type: 'string' },
      url: { type: 'string' },
      yes: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const [command = 'help', ...rest] = positionals;
  if (values.help || command === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  const { config = DEFAULT_CONFIG, state, url } = values;
  switch (command) {
    case 'up':
      if (rest.length > 0 || url !== undefined) throw unknown(positionals);
      return await (await import('./up.ts')).up({ config, state, port: portOf(values.port), yes: values.yes });
    case 'stdio': {
      const [server, ...more] = rest;
      if (server === undefined) throw new UsageError('Which server? Say "moorage stdio <server>".');
      if (more.length > 0 || values.port !== undefined || values.yes) throw unknown(positionals);
      return await (await import('./stdio/stdio.ts')).stdio({ server, config, state, url });
    }
    default:
      throw unknown(positionals);
  }
}

const unknown = (positionals: readonly string[]): UsageError =>
  new UsageError(`Unknown command or option: "${positionals.join(' ')}". See "moorage help".`);

function portOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const port = Number(text);
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port;
  throw new UsageError('--port takes a number from 0 to 65535.');
}

/** Failures that a message explains: no stack is printed for them. Named, so that not every command loads them all. */
const EXPECTED = ['ConfigError', 'UsageError', 'RouterError', 'BundleError', 'EdgeStartError', 'MachineError'];

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof Error && EXPECTED.includes(error.name)) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  } else if (error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')) {
    process.stderr.write(`${error.message}\nSee "moorage help".\n`);
    process.exitCode = 2;
  } else throw error;
}
