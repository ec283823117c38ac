/**
 * Keeps what the host started apart from the agent: servers live in a control group of their own, whose number of
 * processes is limited (`limits.pids`) and which has to leave the agent a share of the processor; and of two who want the
 * last memory the agent is not the one that is killed. So a fork bomb leaves a machine that can be asked to stop it.
 *
 * A process is born where its parent is: the agent steps into the group for the moment of a start. Moving a child
 * afterwards would lose the children that it has made by then.
 */
import { existsSync, writeFileSync } from 'node:fs';

const GROUPS = '/sys/fs/cgroup';
/** Where the agent, and what it starts for itself, is. `images/base.ts` makes both. */
const AGENT = `${GROUPS}/agent/cgroup.procs`;
const SERVERS = `${GROUPS}/servers/cgroup.procs`;
const NEVER_KILLED = '-1000';

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
