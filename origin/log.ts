/**
 * Owns the owner's log: one file for the agent, one per server for its stderr, one per machine for its connections, each rotated once at a bound.
 *
 * Invariants: lines are cut at 8 KiB and control characters are made visible (a server's stderr must not drive the
 * owner's terminal); a full disk never takes the agent down.
 */
import { appendFileSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';

export interface Log {
  debug(text: string): void;
  info(text: string): void;
  warn(text: string): void;
  error(text: string): void;
  /** One line of a server's stderr. */
  server(name: string, line: string): void;
  /** One line of what a machine did that its owner may want to look up: its connections. */
  machine(key: string, line: string): void;
}

const MAX_FILE_BYTES = 10 * 1024 * 1024;
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
  const sizes = new Map<string, number>();
  const append = (file: string, line: string): void => {
    const path = join(dir, file);
    const text = `${new Date(now()).toISOString()} ${line}\n`;
    try {
      let size = sizes.get(file) ?? statSync(path, { throwIfNoEntry: false })?.size ?? 0;
      if (size > MAX_FILE_BYTES) {
        renameSync(path, `${path}.1`);
        size = 0;
      }
      appendFileSync(path, text, { mode: 0o600 });
      sizes.set(file, size + text.length);
    } catch (error) {
      print(`warning: the log cannot be written (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`);
    }
  };
  const at = (level: string, shown: boolean) => (text: string) => {
    const line = printable(text);
    append('agent.log', `${level} ${line}`);
    if (shown) print(level === 'info' ? line : `${level}: ${line}`);
  };
  return {
    debug: at('debug', false),
    info: at('info', true),
    warn: at('warning', true),
    error: at('error', true),
    server: (name, line) => append(`server-${name}.log`, printable(line)),
    machine: (key, line) => append(`machine-${key}.log`, printable(line)),
  };
}
