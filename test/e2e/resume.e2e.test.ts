/** Real clients whose connection, edge or agent goes away in the middle of a call: nothing is lost, nothing comes twice. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WireClient } from '../edge/edge-under-test.ts';
import { type CuttingProxy, cuttingProxy } from '../support/cutting-proxy.ts';
import { moorageUp, project, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const { dir, state } = project({
  mcpServers: {
    scripted: { runtime: 'process', command: 'node', args: [join(ROOT, 'test/support/scripted-server.mjs')] },
  },
});

let moorage: Running;
let proxy: CuttingProxy;
beforeAll(async () => {
  moorage = await moorageUp(dir);
  proxy = await cuttingProxy(Number(new URL(moorage.url).port));
});
afterAll(async () => {
  await proxy.close();
  await moorage.stop();
});
const toClose: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const client of toClose.splice(0)) await client.close();
});

const info = { name: 'resuming', version: '1' };
/** A busy host starts an edge in more than the six seconds that the SDK's two attempts give it. */
const reconnectionOptions = {
  initialReconnectionDelay: 1_000,
  maxReconnectionDelay: 30_000,
  reconnectionDelayGrowFactor: 1.5,
  maxRetries: 20,
};
type Step = (seen: (progress: number) => void, steps: number) => Promise<string>;
const textOf = (result: unknown) => (result as { content: { text: string }[] }).content[0]?.text ?? '';
const stepping = (steps: number) => ({ name: 'do', arguments: { action: 'step', steps, ms: 250 } });

async function v1(base: string): Promise<Step> {
  const client = new ClientV1(info);
  await client.connect(new TransportV1(new URL(`${base}/scripted/mcp`), { reconnectionOptions }));
  toClose.push(client);
  return async (seen, steps) => {
    const onprogress = ({ progress }: { progress: number }) => seen(progress);
    return textOf(await client.callTool(stepping(steps), undefined, { onprogress, timeout: 120_000 }));
  };
}

async function v2(base: string): Promise<Step> {
  const client = new Client(info, { versionNegotiation: { mode: 'legacy' } });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${base}/scripted/mcp`), { reconnectionOptions }));
  toClose.push(client);
  return async (seen, steps) => {
    const onprogress = ({ progress }: { progress: number }) => seen(progress);
    return textOf(await client.callTool(stepping(steps), { onprogress, timeout: 120_000 }));
  };
}

/** Calls, and does something when the third step is seen. Gives every step that the client saw, and the answer. */
async function interrupted(step: Step, steps: number, interrupt: () => unknown) {
  const seen: number[] = [];
  const answer = step((progress) => {
    seen.push(progress);
    if (progress === 3) void interrupt();
  }, steps);
  return { answer: await answer, seen };
}
const upTo = (n: number) => Array.from({ length: n }, (_, index) => index + 1);
const killEdge = () => process.kill(Number(readFileSync(join(state, 'edge/workerd.pid'), 'utf8')), 'SIGKILL');
const restart = async () => {
  await moorage.kill();
  moorage = await moorageUp(dir, { port: Number(new URL(moorage.url).port) });
};

describe.each([
  ['SDK v1', v1],
  ['SDK v2', v2],
])('a client of %s', (_, connect) => {
  test('whose connection is cut gets every step once, in order, and the answer', async () => {
    const step = await connect(proxy.url);
    const { seen, answer } = await interrupted(step, 20, () => proxy.cut());
    expect([seen, answer]).toEqual([upTo(20), 'done']);
  });

  test('whose edge is killed with -9 gets every step once, in order, and the answer', async () => {
    const step = await connect(moorage.url);
    const { seen, answer } = await interrupted(step, 20, killEdge);
    expect([seen, answer]).toEqual([upTo(20), 'done']);
  });

  test('whose agent is killed with -9 is told that the outcome is unknown; the session goes on', async () => {
    const step = await connect(moorage.url);
    let restarted: Promise<void> | undefined;
    await expect(
      interrupted(step, 1_000, () => {
        restarted = restart();
      }),
    ).rejects.toMatchObject({ data: { code: 'outcome_unknown', cause: 'agent_gone' } });
    await restarted;
    expect((await interrupted(step, 2, () => undefined)).answer).toBe('done');
  });
});

test('what had ended before the agent was killed with -9 is replayed by the next one', async () => {
  const wire = new WireClient(() => moorage.url, 'scripted');
  await (await wire.initialize()).text();
  const call = (id: string) =>
    ({ jsonrpc: '2.0', id, method: 'tools/call', params: { ...stepping(2), _meta: { progressToken: 1 } } }) as const;
  const before = await (await wire.post(call('one'))).text();
  const first = /^id: (.*)$/m.exec(before)?.[1] ?? expect.fail('no id');
  await restart();
  const replayed = await (await wire.get({ 'last-event-id': first })).text();
  expect(replayed).toBe(before);
});

test('what a server says unasked while its client is cut off comes when it is back, once each', async () => {
  const client = new Client(info, { versionNegotiation: { mode: 'legacy' } });
  let changes = 0;
  client.setNotificationHandler('notifications/tools/list_changed', () => {
    changes++;
  });
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`${proxy.url}/scripted/mcp`), { reconnectionOptions }),
  );
  toClose.push(client);
  // Neither can be asked anything, so both use one process, and what it says unasked is for both.
  const other = new Client(info, { versionNegotiation: { mode: 'legacy' } });
  await other.connect(new StreamableHTTPClientTransport(new URL(`${moorage.url}/scripted/mcp`)));
  toClose.push(other);
  const change = () => other.callTool({ name: 'do', arguments: { action: 'changed' } });
  await client.callTool({ name: 'do', arguments: { action: 'echo', value: 'warm' } });
  await change();
  await expect.poll(() => changes).toBe(1);
  proxy.cut();
  await change();
  await change();
  await expect.poll(() => changes).toBe(3);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  expect(changes).toBe(3);
});
