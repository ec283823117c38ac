/**
 * Keeps what the host started apart from the agent: servers live in a control group of their own, whose number of
 * processes is limited (`limits.pids`) and which has to leave the agent a share of the processor; and of two who want the
 * last memory the agent is not the one that is killed. So a fork bomb leaves a machine that can be asked to stop it.
 *
 * As a group they are also held still or ended, daemons included. Its freezer is not noticed by any process, unlike SIGSTOP.
 *
 * A process is born where its parent is: the agent steps into the group for the moment of a start. Moving a child
 * afterwards would lose the children that it has made by then.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const GROUPS = '/sys/fs/cgroup';
/** Where the agent, and what it starts for itself, is. `images/base.ts` makes both. */
const AGENT = `${GROUPS}/agent/cgroup.procs`;
const SERVERS = `${GROUPS}/servers/cgroup.procs`;
const NEVER_KILLED = '-1000';
/** A process that waits for its disk stops a little later, in milliseconds. */
const STILL_WITHIN_MS = 2_000;

/** Starts a process (synchronously) among the servers. @throws what `start` throws. */
export function amongServers<T>(start: () => T): T {
  if (!existsSync(SERVERS)) return start();
  writeFileSync(SERVERS, '0');
  writeFileSync('/proc/self/oom_score_adj', '0');
  try {
    return start();
  } finally {
    writeFileSync('/proc/self/oom_score_adj', NEVER_KILLED);
    writeFileSync(AGENT, '0');
  }
}

const tell = (file: string): void => writeFileSync(`${GROUPS}/servers/${file}`, '1');

/** Resolves when none of the servers runs. Rejects when that takes too long: they then run as before. */
export async function holdServers(): Promise<void> {
  tell('cgroup.freeze');
  const deadline = Date.now() + STILL_WITHIN_MS;
  while (!/^frozen 1$/m.test(readFileSync(`${GROUPS}/servers/cgroup.events`, 'utf8'))) {
    if (Date.now() > deadline) {
      releaseServers();
      throw new Error('its processes could not be held still');
    }
    await sleep(1);
  }
}

export function releaseServers(): void {
  if (!existsSync(SERVERS)) return;
  writeFileSync(`${GROUPS}/servers/cgroup.freeze`, '0');
}

/** Ends all of them, held or not, before any does another step. */
export const endServers = (): void => tell('cgroup.kill');
