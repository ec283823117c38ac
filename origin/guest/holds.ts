/**
 * Reads who inside the machine asks that it stay awake: files in HOLDS_FOLDER, each with two numbers, the uptime in seconds
 * at which it ends and the process that made it (0: none). `moorage-hold` writes them; a program may write its own.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs';

export const HOLDS_FOLDER = '/run/moorage/holds';
/** A hold ends after this time even when it asks for more, in milliseconds. */
const LONGEST_MS = 7 * 24 * 3600 * 1000;
const MAX_FILES = 1_000;

/** How long the machine is to stay awake from now, in milliseconds; 0 when nobody asks. Removes what has ended. */
export function heldForMs(folder: string, uptimeSeconds: number, isAlive: (pid: number) => boolean): number {
  let files: string[];
  try {
    files = readdirSync(folder).slice(0, MAX_FILES);
  } catch {
    return 0;
  }
  let longest = 0;
  for (const name of files) {
    const path = `${folder}/${name}`;
    const remaining = remainingMs(path, uptimeSeconds, isAlive);
    if (remaining <= 0) rmSync(path, { force: true, recursive: true });
    else longest = Math.max(longest, remaining);
  }
  return Math.min(longest, LONGEST_MS);
}

function remainingMs(path: string, uptimeSeconds: number, isAlive: (pid: number) => boolean): number {
  try {
    const [until = Number.NaN, pid = 0] = readFileSync(path, 'utf8').trim().split(/\s+/).map(Number);
    if (pid > 0 && !isAlive(pid)) return 0;
    return (until - uptimeSeconds) * 1000 || 0;
  } catch {
    return 0;
  }
}
