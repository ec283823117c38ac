/**
 * Who a process id belongs to, from /proc. A bare number proves nothing, since the kernel reuses it: the start time
 * tells two owners of one number apart, and the command line tells whether a process is ours.
 */
import { readFileSync } from 'node:fs';

/** Start time of a live process in clock ticks since boot, as text; undefined when there is none (or a zombie). */
export function processStart(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The name in parentheses may itself hold spaces and parentheses: fields count from behind the last one.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}

/** The arguments of a live process; empty when it has gone. */
export function processArguments(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}
