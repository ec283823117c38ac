#!/usr/bin/env node
/** Owns the command line: which command is meant, its options, and exit codes (0 done, 1 failed, 2 wrong usage). */
import { parseArgs } from 'node:util';
import { COMMON_OPTIONS, COMMON_USAGE, type Input } from './command.ts';
import { COMMANDS } from './commands.ts';
import { DEFAULT_CONFIG } from './config-file.ts';
import { UsageError } from './usage.ts';

function help(): string {
  const entries = [
    ...Object.values(COMMANDS),
    { call: 'help [command]', summary: 'show this text, or what a command takes' },
  ];
  const width = Math.max(...entries.map(({ call }) => call.length));
  const lines = entries.map(({ call, summary }) => `  ${call.padEnd(width)}  ${summary}`);
  return `moorage: one address for all your MCP servers

Usage: moorage <command> [options]

Commands:
${lines.join('\n')}

Options of every command:
${COMMON_USAGE}`;
}

async function main(argv: readonly string[]): Promise<number> {
  const [name = 'help', ...args] = argv;
  if (['help', '--help', '-h'].includes(name)) return await showHelp(args[0]);
  if (name.startsWith('-'))
    throw new UsageError(`Name a command first: "moorage <command> ${name} …". See "moorage help".`);
  const command = await load(name);
  const cut = args.indexOf('--');
  const { values, positionals } = parseArgs({
    args: cut < 0 ? args : args.slice(0, cut),
    allowPositionals: true,
    options: { ...COMMON_OPTIONS, ...command.options },
  });
  if (values.help) return await showHelp(name);
  const { config = DEFAULT_CONFIG, state, help: _, ...rest } = values;
  return await command.run({
    positionals,
    values: rest as Input['values'],
    rest: cut < 0 ? [] : args.slice(cut + 1),
    config: String(config),
    state: typeof state === 'string' ? state : undefined,
  });
}

async function load(name: string) {
  const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!entry) throw new UsageError(`Unknown command: "${name}". See "moorage help".`);
  return (await entry.load()).command;
}

async function showHelp(name: string | undefined): Promise<number> {
  process.stdout.write(name === undefined ? help() : `Usage: moorage ${(await load(name)).usage}`);
  return 0;
}

/** Failures that a message explains: no stack is printed for them. Named, so that not every command loads them all. */
const EXPECTED = [
  'ConfigError',
  'UsageError',
  'RouterError',
  'BundleError',
  'EdgeStartError',
  'MachineError',
  'MoorageError',
  'UnpackError',
];

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
