/**
 * Reads which tasks a server has begun and ended from what it says. Pure.
 *
 * 2025-11-25 (basic/utilities/tasks): a result with `task`, then results and `notifications/tasks/status` with `taskId` and
 * `status`. The tasks extension of 2026-07-28: the same members in a result of `resultType: "task"`.
 */
import { isResponse, type JsonRpcMessage } from '../../shared/jsonrpc.ts';
import { isRecord } from '../../shared/rev-2026-07-28.ts';

const OVER: ReadonlySet<unknown> = new Set(['completed', 'failed', 'cancelled']);

/** The task that this message is about: of a new one, how long it lives at most. */
export function startedTask(message: JsonRpcMessage): { id: string; livesMs: number } | undefined {
  const task = taskIn(message);
  if (task === undefined || OVER.has(task.status)) return undefined;
  const ttl = task.ttl ?? task.ttlMs;
  return { id: task.taskId, livesMs: typeof ttl === 'number' && ttl > 0 ? ttl : Number.POSITIVE_INFINITY };
}

/** The task that is over according to this message. */
export function endedTask(message: JsonRpcMessage): string | undefined {
  const task = taskIn(message);
  return task !== undefined && OVER.has(task.status) ? task.taskId : undefined;
}

type Task = Record<string, unknown> & { taskId: string };

function taskIn(message: JsonRpcMessage): Task | undefined {
  if (isResponse(message)) {
    if (!('result' in message)) return undefined;
    const { result } = message;
    return [result.task, result].find(isTask);
  }
  return message.method === 'notifications/tasks/status' && isTask(message.params) ? message.params : undefined;
}

const isTask = (value: unknown): value is Task =>
  isRecord(value) && typeof value.taskId === 'string' && typeof value.status === 'string';
