/** Servers that run inside the Worker, used by the clients of both SDKs and by hand. */
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Client as ClientV1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as TransportV1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';

const path = (file: string) => new URL(file, import.meta.url).pathname;

let edge: UnderTest;
beforeAll(async () => {
  edge = await edgeUnderTest({
    time: path('../../servers/time.ts'),
    asking: path('./asking-server.ts'),
    'asking-v1': path('./asking-server-v1.ts'),
  });
  // Nothing here needs an origin.
  await edge.origin.close();
});
afterAll(() => edge.stop());

const url = (server: string) => new URL(`${edge.url}/${server}/mcp`);
const capabilities = { elicitation: {}, sampling: {} };

/** A client of SDK v2 that answers what it is asked. */
async function connected(server: string, mode: 'auto' | 'legacy' = 'legacy'): Promise<Client> {
  const client = new Client({ name: 'v2', version: '1' }, { capabilities, versionNegotiation: { mode } });
  client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: { name: 'Ada' } }));
  client.setRequestHandler('sampling/createMessage', () => ({
    model: 'none',
    role: 'assistant',
    content: { type: 'text', text: 'something' },
  }));
  await client.connect(new StreamableHTTPClientTransport(url(server)));
  return client;
}

const textOf = (result: unknown) => (result as { content: { text: string }[] }).content[0]?.text ?? '';

describe('time', () => {
  test.each(['legacy', 'auto'] as const)('a client of SDK v2 in mode %s lists and calls', async (mode) => {
    const client = await connected('time', mode);
    expect((await client.listTools()).tools.map((tool) => tool.name)).toEqual(['get_current_time', 'convert_time']);
    const args = { source_timezone: 'Asia/Kolkata', time: '12:00', target_timezone: 'UTC' };
    const converted = JSON.parse(textOf(await client.callTool({ name: 'convert_time', arguments: args })));
    expect(converted).toMatchObject({
      source: { datetime: expect.stringMatching(/T12:00:00\+05:30$/) },
      target: { datetime: expect.stringMatching(/T06:30:00\+00:00$/) },
      time_difference: '-5.5h',
    });
    await client.close();
  });

  test('a client of SDK v1 lists and calls', async () => {
    const client = new ClientV1({ name: 'v1', version: '1' });
    await client.connect(new TransportV1(url('time')));
    expect((await client.listTools()).tools).toHaveLength(2);
    const now = await client.callTool({ name: 'get_current_time', arguments: { timezone: 'UTC' } });
    expect(JSON.parse(textOf(now))).toMatchObject({ timezone: 'UTC', datetime: expect.stringMatching(/\+00:00$/) });
    await client.close();
  });

  test('says which argument is wrong', async () => {
    const client = await connected('time');
    const result = await client.callTool({ name: 'get_current_time', arguments: { timezone: 'Mars/Olympus' } });
    expect(result.isError).toBe(true);
    expect(textOf(result)).toContain('"Mars/Olympus" is no IANA time zone');
    await client.close();
  });
});

test('a slow call and a silent stream are kept alive by comments', async () => {
  const wire = new WireClient(() => edge.url, 'asking');
  await wire.initialize();
  const calling = { jsonrpc: '2.0', id: 5, method: 'tools/call', params: { name: 'wait', arguments: {} } } as const;
  const [call, stream] = [new EventReader(await wire.post(calling)), new EventReader(await wire.get())];
  for (const reader of [call, stream]) {
    for (let block = await reader.block(); block !== ': keep-alive'; block = await reader.block()) {
      expect(block).not.toBeNull();
    }
  }
  await wire.request('DELETE');
});

test('a client that leaves in the middle of a call does not cancel it', async () => {
  const wire = new WireClient(() => edge.url, 'asking');
  await wire.initialize();
  const calling = {
    jsonrpc: '2.0',
    id: 5,
    method: 'tools/call',
    params: { name: 'ask_then_change', arguments: {} },
  } as const;
  const reader = new EventReader(await wire.post(calling));
  const question = (await reader.message()) as { id: string };
  await reader.cancel();
  const answer = { jsonrpc: '2.0', id: question.id, result: { action: 'accept', content: { name: 'Ada' } } } as const;
  await wire.post(answer);
  // The call goes on with the answer, and what it then says to the session arrives on the session's stream.
  expect(await new EventReader(await wire.get()).message()).toMatchObject({
    method: 'notifications/tools/list_changed',
  });
});

describe.each(['asking', 'asking-v1'])('%s', (server) => {
  test.each([
    ['ask_name', 'accept {"name":"Ada"}'],
    ['ask_model', '{"type":"text","text":"something"}'],
  ])('%s: what the server asks in a call is answered by the client', async (name, expected) => {
    const client = await connected(server);
    expect(textOf(await client.callTool({ name, arguments: {} }))).toBe(expected);
    await client.close();
  });

  test('calls at the same time get the answers to their own questions', async () => {
    const wire = new WireClient(() => edge.url, server);
    await wire.initialize();
    const call = async (id: number) => {
      const reader = new EventReader(
        await wire.post({ jsonrpc: '2.0', id, method: 'tools/call', params: { name: 'ask_name', arguments: {} } }),
      );
      return { id, reader, question: (await reader.message()) as { id: string } };
    };
    const calls = await Promise.all([1, 2, 3].map(call));
    expect(new Set(calls.map(({ question }) => question.id)).size).toBe(3);
    for (const { id, question } of [...calls].reverse()) {
      const answer = {
        jsonrpc: '2.0',
        id: question.id,
        result: { action: 'accept', content: { name: `n${id}` } },
      } as const;
      expect((await wire.post(answer)).status).toBe(202);
    }
    for (const { id, reader } of calls) {
      expect(await reader.message()).toMatchObject({ id, result: { content: [{ text: `accept {"name":"n${id}"}` }] } });
      expect(await reader.message()).toBeNull();
    }
  });

  test('each call finds the subscriptions and the log level of its session', async () => {
    const client = await connected(server);
    const logged: unknown[] = [];
    client.setNotificationHandler('notifications/message', ({ params }) => {
      logged.push(params.data);
    });
    await client.subscribeResource({ uri: 'note:1' });
    await client.subscribeResource({ uri: 'note:2' });
    await client.unsubscribeResource({ uri: 'note:1' });
    await client.setLoggingLevel('error');
    expect(textOf(await client.callTool({ name: 'subscriptions', arguments: {} }))).toBe('note:2');
    await client.callTool({ name: 'log', arguments: {} });
    expect(logged).toEqual(['at large']);
    await client.close();
  });

  test("a change of a list reaches the session's own stream", async () => {
    const wire = new WireClient(() => edge.url, server);
    await wire.initialize();
    await wire.call('tools/call', { name: 'change_list', arguments: {} });
    expect(await new EventReader(await wire.get()).message()).toEqual({
      jsonrpc: '2.0',
      method: 'notifications/tools/list_changed',
    });
  });

  test('a cancelled call ends without a response', async () => {
    const wire = new WireClient(() => edge.url, server);
    await wire.initialize();
    const reader = new EventReader(
      await wire.post({ jsonrpc: '2.0', id: 5, method: 'tools/call', params: { name: 'wait', arguments: {} } }),
    );
    expect(await reader.message()).toMatchObject({ method: 'notifications/message' });
    await wire.post({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 5 } });
    expect(await reader.message()).toBeNull();
  });

  test('an answer to a question that nobody asked is taken and goes nowhere', async () => {
    const wire = new WireClient(() => edge.url, server);
    await wire.initialize();
    expect((await wire.post({ jsonrpc: '2.0', id: 'AAAAAAAAAAA.0', result: {} })).status).toBe(202);
  });

  test('a tool that throws is an error of the tool', async () => {
    const client = await connected(server);
    expect(await client.callTool({ name: 'fail', arguments: {} })).toMatchObject({ isError: true });
    await client.close();
  });
});
