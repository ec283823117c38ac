/**
 * Owns what may fail in the official suite, scenario by scenario, and why. A scenario that is not named here must pass,
 * and one that is named must fail: a line that has become untrue fails the test.
 *
 * All of them are of the tasks extension (SEP-2663), which the requirements of 2026-07-28 run and do not score. The
 * fixture has no tasks, so exactly these fail against it directly too; Moorage passes the extension through.
 */
import type { Revision } from './run.ts';

const NO_TASKS = 'the fixture has none of the tasks that this scenario starts';

export const EXPECTED_FAILURES: Readonly<Record<Revision, Readonly<Record<string, string>>>> = {
  '2025-06-18': {},
  '2025-11-25': {},
  '2026-07-28': {
    'tasks-capability-negotiation': 'the fixture does not advertise the extension',
    'tasks-dispatch-and-envelope': NO_TASKS,
    'tasks-lifecycle': NO_TASKS,
    'tasks-mrtr-composition': NO_TASKS,
    'tasks-mrtr-input': NO_TASKS,
    'tasks-request-headers': NO_TASKS,
    'tasks-request-state-removal': NO_TASKS,
    'tasks-required-task-error': 'the fixture has no tool that insists on a task',
    'tasks-wire-fields': NO_TASKS,
  },
};
