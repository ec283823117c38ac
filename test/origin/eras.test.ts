/** When silence is a verdict: an old server's, not that of a process which still starts. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Era, Eras } from '../../origin/bridge/eras.ts';
import type { Peer } from '../../origin/bridge/peer.ts';
import type { Upstreams } from '../../origin/bridge/upstreams.ts';
import { type ServerDefinition, serverDefinitions } from '../../origin/server.ts';
import { parseConfig } from '../../shared/config.ts';
import type { JsonRpcRequest, JsonRpcResponse } from '../../shared/jsonrpc.ts';

type Answer = PromiseWithResolvers<JsonRpcResponse>;
/** What the server was asked, by method. */
let asked: Map<string, Answer>;
let cancelled: string[];
let eras: Eras;

const definition = (entry: object): ServerDefinition => {
  const [server] = serverDefinitions(parseConfig(JSON.stringify({ mcpServers: { notes: entry } })));
  if (!server) throw new Error('no server');
  return server;
};
const stdio = definition({ command: 'notes' });
const result = (value: Record<string, unknown>): JsonRpcResponse => ({ jsonrpc: '2.0', id: 'probe', result: value });

beforeEach(() => {
  vi.useFakeTimers();
  asked = new Map();
  cancelled = [];
  const peer: Pick<Peer, 'ask' | 'end' | 'closed'> = {
    ask: (_session, message: JsonRpcRequest, options) => {
      const answer: Answer = Promise.withResolvers();
      asked.set(message.method, answer);
      options?.signal?.addEventListener('abort', () => void cancelled.push(message.method));
      return answer.promise;
    },
    end: async () => undefined,
    closed: new Promise(() => undefined),
  };
  const log = { debug() {}, info() {}, warn() {}, error() {}, server() {}, machine() {} };
  // Of both only what a probe uses.
  eras = new Eras({ upstreams: { connect: async () => peer } as unknown as Upstreams, log });
});
afterEach(() => void vi.useRealTimers());

/** Asks for the era, and tells it once it is known. */
async function probing(server: ServerDefinition): Promise<{ era: Era | undefined }> {
  const seen: { era: Era | undefined } = { era: undefined };
  void eras.of(server).then((era) => {
    seen.era = era;
  });
  await vi.waitFor(() => expect(asked.has('server/discover')).toBe(true));
  return seen;
}
const pass = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1000);

describe('the probe of a process', () => {
  test('that starts slowly waits for it', async () => {
    const seen = await probing(stdio);
    await pass(29);
    expect(seen.era).toBeUndefined();
    asked.get('server/discover')?.resolve(result({ supportedVersions: ['2026-07-28'] }));
    await pass(0);
    expect(seen.era).toBe('modern');
  });

  test('that reads, but says nothing to it, is over ten seconds later', async () => {
    const seen = await probing(stdio);
    await pass(20);
    asked.get('ping')?.resolve(result({}));
    await pass(9.9);
    expect(seen.era).toBeUndefined();
    await pass(0.2);
    expect(seen.era).toBe('legacy');
    expect(cancelled.sort()).toEqual(['ping', 'server/discover']);
  });

  test('that reads, and answers later than a ping, is heard', async () => {
    const seen = await probing(stdio);
    asked.get('ping')?.resolve(result({}));
    await pass(5);
    asked.get('server/discover')?.resolve(result({ supportedVersions: ['2026-07-28'] }));
    await pass(0);
    expect(seen.era).toBe('modern');
  });

  test('that says nothing at all is over after half a minute, and is asked again after ten', async () => {
    const seen = await probing(stdio);
    await pass(30.1);
    expect(seen.era).toBe('legacy');
    asked.clear();
    expect(await eras.of(stdio)).toBe('legacy');
    expect(asked.size).toBe(0);
    await pass(600);
    void eras.of(stdio);
    await vi.waitFor(() => expect(asked.has('server/discover')).toBe(true));
  });
});

test('a server that listens somewhere is there: it is not asked for a sign of life, and has ten seconds', async () => {
  const answer = eras.of(definition({ url: 'http://127.0.0.1:9/mcp' }));
  answer.catch(() => undefined);
  await vi.waitFor(() => expect(asked.has('server/discover')).toBe(true));
  expect(asked.has('ping')).toBe(false);
  await pass(10.1);
  await expect(answer).rejects.toThrow('did not answer within 10 seconds');
});
