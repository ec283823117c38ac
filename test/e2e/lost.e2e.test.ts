/** Processes killed at random under load: every call has one answer, and what must not run twice does not. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EventReader } from '../edge/edge-under-test.ts';
import { moorageUp, project, type Running } from '../support/moorage.ts';

const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const { dir } = project({
  mcpServers: { scripted: { runtime: 'process', command: process.execPath, args: [SCRIPT, '--hints'] } },
});
const TOOLS = ['do', 'look', 'again'] as const;
const SESSIONS = 8;
const CALLS = 40;

let moorage: Running;
beforeAll(async () => {
  moorage = await moorageUp(dir);
});
afterAll(() => moorage.stop());

interface Answer {
  readonly id: number;
  readonly result?: { content: { text: string }[] };
  readonly error?: { data: { code: string; retryable?: boolean } };
}

async function post(session: string | null, message: object): Promise<{ session: string | null; answers: Answer[] }> {
  const response = await fetch(`${moorage.url}/scripted/mcp`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(session === null ? {} : { 'mcp-session-id': session }),
    },
    body: JSON.stringify({ jsonrpc: '2.0', ...message }),
  });
  const answers: Answer[] = [];
  if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
    const reader = new EventReader(response);
    for (let seen = await reader.message(); seen; seen = await reader.message())
      answers.push(seen as unknown as Answer);
  } else answers.push((await response.json()) as Answer);
  return { session: response.headers.get('mcp-session-id'), answers };
}

/** Executions so far, as `[call, process]`. */
function executions(): [string, number][] {
  const file = join(dir, 'executions.log');
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').trim().split('\n');
  return lines.map((line) => [line.split(' ')[0] ?? '', Number(line.split(' ')[1])]);
}

test(`${SESSIONS * CALLS} calls, and a server process killed with -9 every few of them`, async () => {
  const initialize = (capabilities: object) => ({
    id: 0,
    method: 'initialize',
    params: { protocolVersion: '2025-11-25', capabilities, clientInfo: { name: 'load', version: '1' } },
  });
  let running = true;
  let killed = 0;
  // What has just begun is running: of all that is killed, some may run again and some may not.
  const killer = async () => {
    for (let seen = 0; running; await delay(10)) {
      const all = executions();
      const victim = all.at(-1)?.[1];
      if (victim === undefined || all.length < seen + 20) continue;
      seen = all.length;
      try {
        process.kill(victim, 'SIGKILL');
        killed++;
      } catch {
        // Killed already.
      }
    }
  };
  const outcomes = new Map<string, { tool: string; answers: Answer[] }>();
  const client = async (n: number) => {
    // Half of them have a process of their own, half share one.
    const { session } = await post(null, initialize(n % 2 === 0 ? {} : { sampling: {} }));
    await post(session, { id: 1, method: 'tools/list' });
    const calls = Array.from({ length: CALLS }, async (_, k) => {
      await delay(k * 60 + Math.random() * 60);
      const tool = TOOLS[k % TOOLS.length] ?? 'do';
      const value = `${n}-${k}`;
      const args = { action: 'record', value, ms: 100 + Math.random() * 200 };
      const { answers } = await post(session, { id: k, method: 'tools/call', params: { name: tool, arguments: args } });
      outcomes.set(value, { tool, answers });
    });
    await Promise.all(calls);
  };
  const killing = killer();
  await Promise.all(Array.from({ length: SESSIONS }, (_, n) => client(n)));
  running = false;
  await killing;

  const count = Map.groupBy(executions(), ([call]) => call);
  let repeated = 0;
  expect(outcomes.size).toBe(SESSIONS * CALLS);
  expect(killed).toBeGreaterThan(3);
  for (const [value, { tool, answers }] of outcomes) {
    const times = count.get(value)?.length ?? 0;
    expect(answers, value).toHaveLength(1);
    const [answer] = answers;
    expect(answer?.id).toBe(Number(value.split('-')[1]));
    const code = answer?.error?.data.code ?? 'done';
    if (times === 2 && code === 'done') repeated++;
    expect(times, `${tool} ${value} ${code}`).toBeLessThanOrEqual(tool === 'do' ? 1 : 2);
    if (answer?.result) {
      expect(answer.result.content[0]?.text).toBe(value);
      expect(times).toBeGreaterThan(0);
    } else if (code === 'outcome_unknown') {
      expect(answer?.error?.data.retryable, `${tool} ${value}`).toBe(tool !== 'do');
    } else expect(['server_failed', 'overloaded']).toContain(code);
  }
  expect(repeated).toBeGreaterThan(0);
}, 120_000);
