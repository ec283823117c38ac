#!/usr/bin/env node
/** Owns the command line: which command is meant, its options, and exit codes (0 done, 1 failed, 2 wrong usage). */
import { parseArgs } from 'node:util';
import { ConfigError } from '../shared/config.ts';
import { UsageError } from './state.ts';
import { up } from './up.ts';

const HELP = `moorage: one address for all your MCP servers

Usage: moorage <command> [options]

Commands:
  up       serve the configured servers on this machine (what "npm start" does)
  help     show this text

Options of up:
  --config FILE  the configuration (default: moorage.jsonc)
  --state DIR    keys, disks and logs (default: .moorage beside the configuration)
  --port PORT    listen here instead of the configured port
  --yes          install what is missing (QEMU) without asking
`;

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      config: { type: 'string' },
      state: { type: 'string' },
      port: { type: 'string' },
      yes: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const [command = 'help', ...rest] = positionals;
  if (values.help || command === 'help') {
    process.stdout.write(HELP);
    return 0;
  }
  if (command !== 'up' || rest.length > 0)
    throw new UsageError(`Unknown command "${positionals.join(' ')}". See "moorage help".`);
  const port = values.port === undefined ? undefined : Number(values.port);
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65535))
    throw new UsageError('--port takes a number from 0 to 65535.');
  return await up({ config: values.config ?? 'moorage.jsonc', state: values.state, port, yes: values.yes });
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof ConfigError || error instanceof UsageError) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  } else if (error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS')) {
    process.stderr.write(`${error.message}\nSee "moorage help".\n`);
    process.exitCode = 2;
  } else throw error;
}
