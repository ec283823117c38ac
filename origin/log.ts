/**
 * Owns the owner's log: one file for the agent, one per server and machine for stderr, one per machine for its
 * connections, each with older ones beside it and a bound.
 *
 * Invariants: lines are cut at 8 KiB and control characters are made visible (a server's stderr must not drive the
 * owner's terminal); a full disk never takes the agent down.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Bounds, LogFiles } from './log-file.ts';
import { serverFile } from './server-log.ts';

export interface Log {
  debug(text: string): void;
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
  /** One line of a server's stderr in a machine. */
  server(name: string, machine: string, line: string): void;
  /** One line of what a machine did that its owner may want to look up: its connections. */
  machine(key: string, line: string): void;
}

const OWN: Bounds = { maxBytes: 10 * 1024 * 1024, older: 1 };
/** Of each server in each machine. */
const SERVERS: Bounds = { maxBytes: 4 * 1024 * 1024, older: 4 };
/** Of each machine. */
const MACHINES: Bounds = { maxBytes: 4 * 1024 * 1024, older: 1 };
/** What was written of a machine that nobody has used since is removed after this time. */
const KEPT_MS = 30 * 86_400_000;
const MAX_LINE = 8 * 1024;

/** Removes what could drive a terminal: C0 (but tab and newline), DEL, C1. Cuts at 8 KiB. */
export function printable(text: string): string {
  const cut = text.length > MAX_LINE ? `${text.slice(0, MAX_LINE)}… (cut)` : text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: removing control characters is the purpose.
  return cut.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '\ufffd');
}

/** A log under `dir` (created 0700). `print` gets every line of level info and above, for the terminal. */
export function openLog(dir: string, print: (line: string) => void, now: () => number = Date.now): Log {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  for (const folder of ['servers', 'machines']) sweep(join(dir, folder), now() - KEPT_MS);
  const files = new LogFiles((code) => print(`warning: the log cannot be written (${code})`));
  const append = (path: string, line: string, bounds: Bounds): void => {
    files.append(path, `${new Date(now()).toISOString()} ${line}\n`, bounds);
  };
  const at = (level: string, shown: boolean) => (text: string) => {
    const line = printable(text);
    append(join(dir, 'agent.log'), `${level} ${line}`, OWN);
    if (shown) print(level === 'info' ? line : `${level}: ${line}`);
  };
  return {
    debug: at('debug', false),
    info: at('info', true),
    warn: at('warning', true),
    error: at('error', true),
    server: (name, machine, line) => append(serverFile(dir, name, machine), oneLine(line), SERVERS),
    machine: (key, line) => append(join(dir, 'machines', `${key}.log`), oneLine(line), MACHINES),
  };
}

/** A line of a server, or of what a guest said, is a line of the file, whatever is in it. */
const oneLine = (text: string): string => printable(text).replaceAll('\n', '\ufffd');

function sweep(folder: string, before: number): void {
  try {
    for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      const status = statSync(join(folder, name), { throwIfNoEntry: false });
      if (status?.isFile() && status.mtimeMs < before) rmSync(join(folder, name), { force: true });
    }
  } catch {
    // Nothing was ever written, or it cannot be read: then it is not ours to remove.
  }
}
