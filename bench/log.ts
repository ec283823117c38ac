/** Logs of the benchmark. */
import type { Log } from '../origin/log.ts';

const nothing = () => undefined;
export const QUIET: Log = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  server: nothing,
  machine: nothing,
};

/** What goes wrong is shown; a benchmark that boots instead of waking must not look like a fast one. */
export function complaining(print: (line: string) => unknown): Log {
  return { ...QUIET, warn: print, error: print };
}
