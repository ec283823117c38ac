import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Eras } from '../../origin/bridge/eras.ts';
import { ModernPeers } from '../../origin/bridge/modern-peers.ts';
import type { CallSink } from '../../origin/bridge/peer.ts';
import { Sessions } from '../../origin/bridge/sessions.ts';
import { type ServerHost, Upstreams } from '../../origin/bridge/upstreams.ts';
import type { Log } from '../../origin/log.ts';
import { processMachine } from '../../origin/process/driver.ts';
import { Secrets } from '../../origin/secrets/secrets.ts';
import type { ServerDefinition } from '../../origin/server.ts';
import type { RunningMachine } from '../../origin/vm/driver.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage, JsonRpcRequest, JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { NO_SECRETS } from '../support/origin.ts';

const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const ASKABLE = { sampling: {} };

let machine: RunningMachine;
let upstreams: Upstreams;
let sessions: Sessions;
let syncs: number;
let unasked: { sessions: readonly string[]; message: JsonRpcMessage }[];
let stderr: string[];
let warnings: string[];
let scriptArgs: string[];

beforeEach(() => {
  syncs = 0;
  unasked = [];
  stderr = [];
  warnings = [];
  scriptArgs = [];
  const cwd = mkdtempSync(join(tmpdir(), 'moorage-test-'));
  const plain = processMachine();
  machine = { ...plain, sync: async () => void syncs++ };
  const log: Log = {
    debug: () => undefined,
    info: () => undefined,
    warn: (text) => void warnings.push(text),
    error: (text) => void warnings.push(text),
    server: (_name, _machine, line) => void stderr.push(line),
    machine: () => undefined,
  };
  const host: ServerHost = {
    lease: async () => ({ machine, release: () => undefined }),
    leaseNow: () => undefined,
    whenAwake: () => undefined,
    start: (_definition, running) => running.spawn({ argv: [process.execPath, SCRIPT, ...scriptArgs], env: {}, cwd }),
  };
  upstreams = new Upstreams({ host, log, secrets: new Secrets(NO_SECRETS) });
  const eras = new Eras({ upstreams, log });
  const peers = new ModernPeers({ upstreams, eras });
  sessions = new Sessions({
    upstreams,
    eras,
    peers,
    unasked: (to, message) => void unasked.push({ sessions: to, message }),
  });
});
afterEach(async () => {
  await upstreams.close();
  machine.kill();
});

const definition = (process: 'auto' | 'session' | 'shared' = 'auto'): ServerDefinition => ({
  name: 'scripted',
  machine: 'scripted',
  deployment: 'd',
  entry: { runtime: 'process', command: 'node', args: [], env: {}, process, limits: {} },
});
const initialize = (capabilities: object = {}): JsonRpcRequest => ({
  jsonrpc: '2.0',
  id: 'init',
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities, clientInfo: { name: 't', version: '1' } },
});

interface Called {
  readonly messages: JsonRpcMessage[];
  readonly answer: Promise<JsonRpcResponse>;
}
function start(
  peer: { request(session: string, message: JsonRpcRequest, sink: CallSink): void },
  session: string,
  id: string | number,
  args: object,
  meta?: object,
): Called {
  const messages: JsonRpcMessage[] = [];
  const params = { name: 'do', arguments: args, ...(meta ? { _meta: meta } : {}) };
  const answer = new Promise<JsonRpcResponse>((resolve, reject) => {
    peer.request(
      session,
      { jsonrpc: '2.0', id, method: 'tools/call', params },
      { open: true, message: (m) => void messages.push(m), answer: resolve, fail: reject },
    );
  });
  return { messages, answer };
}
const ask = (peer: Parameters<typeof start>[0], session: string, message: JsonRpcRequest) =>
  new Promise<JsonRpcResponse>((answer, fail) => {
    peer.request(session, message, { open: false, message: () => undefined, answer, fail });
  });
const textOf = (response: JsonRpcResponse) =>
  'result' in response ? (response.result.content as { text: string }[])[0]?.text : `error ${response.error.code}`;
const codeOf = async (promise: Promise<unknown>) => {
  const error = await promise.then(
    () => undefined,
    (e: unknown) => e,
  );
  return error instanceof MoorageError ? error.code : error;
};
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe('which process a session gets', () => {
  test('clients that nobody can ask share a process; one that can be asked has its own', async () => {
    const pid = async (session: string, capabilities: object) => {
      const { peer } = await sessions.open(session, definition(), initialize(capabilities));
      return textOf(await start(peer, session, 1, { action: 'pid' }).answer);
    };
    const [a, b, c] = [await pid('a', {}), await pid('b', {}), await pid('c', ASKABLE)];
    expect(a).toBe(b);
    expect(c).not.toBe(a);
  });

  test('`process` in the configuration decides; a shared process is told that its client can do nothing', async () => {
    const a = await sessions.open('a', definition('shared'), initialize(ASKABLE));
    const b = await sessions.open('b', definition('shared'), initialize(ASKABLE));
    expect(a.peer).toBe(b.peer);
    await until(() => stderr.some((line) => line.startsWith('capabilities')));
    expect(stderr).toContain('capabilities {}');
    const c = await sessions.open('c', definition('session'), initialize());
    const d = await sessions.open('d', definition('session'), initialize());
    expect(c.peer).not.toBe(d.peer);
  });

  test('opening is idempotent, also at the same time: one process, the same answer', async () => {
    const opened = await Promise.all(
      Array.from({ length: 20 }, () => sessions.open('s', definition(), initialize(ASKABLE), [])),
    );
    expect(new Set(opened.map(({ peer }) => peer)).size).toBe(1);
    await until(() => stderr.some((line) => line.startsWith('notified')));
    expect(stderr.filter((line) => line.startsWith('notified notifications/initialized'))).toHaveLength(1);
  });

  test('a session that ends takes its own process along and leaves a shared one to the others', async () => {
    const own = await sessions.open('own', definition(), initialize(ASKABLE));
    sessions.end('own');
    await own.peer.closed;
    expect(await codeOf(sessions.get('own', definition()))).toBe('session_unknown');
    const a = await sessions.open('a', definition(), initialize());
    await sessions.open('b', definition(), initialize());
    expect(textOf(await start(a.peer, 'a', 1, { action: 'count' }).answer)).toBe('1');
    sessions.end('a');
    const { peer } = await sessions.get('b', definition());
    expect(textOf(await start(peer, 'b', 1, { action: 'count' }).answer)).toBe('2');
  });

  test('a session belongs to one server', async () => {
    await sessions.open('s', definition(), initialize());
    expect(await codeOf(sessions.get('s', { name: 'other', machine: 'scripted' }))).toBe('session_unknown');
  });
});

describe('calls', () => {
  test('50 at once from 5 sessions with the same ids: each has its own result, and none is passed on before a sync', async () => {
    const peers = await Promise.all(
      ['a', 'b', 'c', 'd', 'e'].map(async (s) => ({
        s,
        peer: (await sessions.open(s, definition(), initialize())).peer,
      })),
    );
    const calls = peers.flatMap(({ s, peer }) =>
      Array.from({ length: 10 }, (_, n) =>
        start(peer, s, n, { action: 'later', ms: (n * 7) % 5, value: `${s}${n}` }).answer.then((answer) => ({
          want: `${s}${n}`,
          id: n,
          answer,
        })),
      ),
    );
    for (const { want, id, answer } of await Promise.all(calls)) {
      expect(textOf(answer)).toBe(want);
      expect(answer.id).toBe(id);
    }
    expect(syncs).toBe(50);
  });

  test('progress and log lines come on the call, a question is answered, lists changed are said unasked', async () => {
    const { peer } = await sessions.open('s', definition(), initialize(ASKABLE));
    const progress = start(peer, 's', 1, { action: 'progress', steps: 3 }, { progressToken: 'p' });
    await progress.answer;
    expect(progress.messages).toMatchObject([1, 2, 3].map((n) => ({ params: { progressToken: 'p', progress: n } })));
    const log = start(peer, 's', 2, { action: 'log' });
    await log.answer;
    expect(log.messages).toMatchObject([{ method: 'notifications/message' }]);
    const ask = start(peer, 's', 3, { action: 'ask' });
    await until(() => ask.messages.length > 0);
    const question = ask.messages[0] as JsonRpcRequest;
    peer.notify('s', { jsonrpc: '2.0', id: question.id, result: { said: 'yes' } });
    expect(textOf(await ask.answer)).toBe('{"said":"yes"}');
    await start(peer, 's', 4, { action: 'changed' }).answer;
    expect(unasked).toMatchObject([{ sessions: ['s'], message: { method: 'notifications/tools/list_changed' } }]);
  });

  test('garbage on stdout is logged and skipped; stderr reaches the log; unknown methods are the server’s to refuse', async () => {
    const { peer } = await sessions.open('s', definition(), initialize());
    expect(textOf(await start(peer, 's', 1, { action: 'garbage' }).answer)).toBe('after garbage');
    await start(peer, 's', 2, { action: 'stderr' }).answer;
    await until(() => stderr.includes('a line on stderr'));
    expect(stderr.filter((line) => line.startsWith('(stdout'))).toHaveLength(3);
    expect(await ask(peer, 's', { jsonrpc: '2.0', id: 9, method: 'future/method' })).toMatchObject({
      id: 9,
      error: { code: -32601 },
    });
  });

  test('10 MB cross; an answer over the bound fails its call and the session lives on', async () => {
    const { peer } = await sessions.open('s', definition(), initialize());
    const big = await start(peer, 's', 1, { action: 'huge', bytes: 10 << 20 }).answer;
    expect(textOf(big)).toHaveLength(10 << 20);
    expect(await codeOf(start(peer, 's', 2, { action: 'huge', bytes: 20 << 20 }).answer)).toBe('server_failed');
    expect(textOf(await start(peer, 's', 3, { action: 'echo', value: 'alive' }).answer)).toBe('alive');
  });
});

describe('when the process ends', () => {
  test('calls in flight fail with an unknown outcome and the exit code, the owner reads its last words, the next message asks for a new process', async () => {
    const { peer } = await sessions.open('s', definition(), initialize(ASKABLE));
    const hanging = start(peer, 's', 1, { action: 'never' }).answer;
    const crashing = start(peer, 's', 2, { action: 'crash', code: 3 }).answer;
    expect(await codeOf(hanging)).toBe('outcome_unknown');
    const error = await crashing.catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'outcome_unknown', data: { exitCode: 3, retryable: false } });
    expect((error as MoorageError).message).toContain('exited with code 3');
    expect((error as MoorageError).message).not.toContain('last words');
    expect(warnings.join('\n')).toContain('last words\nand no newline');
    expect(stderr).toContain('and no newline');
    await peer.closed;
    expect(await codeOf(sessions.get('s', definition()))).toBe('session_unknown');
    expect(await codeOf(start(peer, 's', 3, { action: 'echo' }).answer)).toBe('session_unknown');
  });

  test('an answer written just before the exit still arrives', async () => {
    const { peer } = await sessions.open('s', definition(), initialize());
    expect(await start(peer, 's', 1, { action: 'answer-and-exit' }).answer).toMatchObject({
      id: 1,
      result: { content: [] },
    });
  });

  test('a server that cannot start says so to the caller, with its exit code, and the next try starts it again', async () => {
    scriptArgs = ['--exit-at-once'];
    const error = await sessions.open('s', definition(), initialize()).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'server_failed', data: { exitCode: 7 } });
    expect(warnings.join('\n')).toContain('cannot start');
    scriptArgs = [];
    expect((await sessions.open('s', definition(), initialize())).initialized).toMatchObject({ id: 'init' });
  });
});
