/** Two agents, one after another, and the processes that outlive the first. */
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Eras } from '../../origin/bridge/eras.ts';
import { ModernPeers } from '../../origin/bridge/modern-peers.ts';
import { asked, type SessionPeer } from '../../origin/bridge/peer.ts';
import { Sessions } from '../../origin/bridge/sessions.ts';
import { takeOver } from '../../origin/bridge/take-over.ts';
import { type ServerHost, Upstreams } from '../../origin/bridge/upstreams.ts';
import type { Log } from '../../origin/log.ts';
import { processMachine } from '../../origin/process/driver.ts';
import { Secrets } from '../../origin/secrets/secrets.ts';
import type { ServerDefinition } from '../../origin/server.ts';
import type { RunningMachine, ServerProcess } from '../../origin/vm/driver.ts';
import type { JsonRpcMessage, JsonRpcRequest, JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { modern, NO_SECRETS, textOf } from '../support/origin.ts';

const script = (name: string) => new URL(`../support/${name}.mjs`, import.meta.url).pathname;
const quiet = () => undefined;
const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet, server: quiet, machine: quiet };

let processes: Map<number, ServerProcess>;
let machine: RunningMachine;

beforeEach(() => {
  processes = new Map();
  const plain = processMachine();
  const never = () => Promise.reject(new TypeError('It stays awake.'));
  machine = {
    ...plain,
    sleep: { pause: never, resume: never, hibernate: never, wake: never },
    processes: () => processes,
    spawn: async (spec) => {
      const stream = processes.size + 1;
      const process = { ...(await plain.spawn(spec)), stream };
      processes.set(stream, process);
      return process;
    },
  };
});
afterEach(() => machine.kill());

function agent() {
  const unasked: (readonly string[])[] = [];
  const lease = () => ({ machine, release: () => undefined });
  const host: ServerHost = {
    lease: async () => lease(),
    leaseNow: lease,
    whenAwake: () => undefined,
    start: ({ name }, running) => running.spawn({ argv: [process.execPath, script(name)], env: {}, cwd: tmpdir() }),
  };
  const upstreams = new Upstreams({ host, log, secrets: new Secrets(NO_SECRETS) });
  const eras = new Eras({ upstreams, log });
  const peers = new ModernPeers({ upstreams, eras });
  const sessions = new Sessions({ upstreams, eras, peers, unasked: (to) => void unasked.push(to) });
  const carry = (): unknown => JSON.parse(JSON.stringify(upstreams.carry('m')));
  return { upstreams, eras, peers, sessions, unasked, carry };
}

const definition = (name: string, deployment = 'd'): ServerDefinition => ({
  name,
  machine: 'm',
  deployment,
  entry: { runtime: 'vm', command: 'node', args: [], env: {}, process: 'auto', limits: {} },
});
const known = (...definitions: ServerDefinition[]) => new Map(definitions.map((one) => [one.name, one]));

const initialize = (capabilities: object): JsonRpcRequest => ({
  jsonrpc: '2.0',
  id: 'init',
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities, clientInfo: { name: 't', version: '1' } },
});
async function call(peer: SessionPeer, session: string, action: string): Promise<string | undefined> {
  const params = { name: 'do', arguments: { action } };
  return textOf(await asked(peer, session, { jsonrpc: '2.0', id: 1, method: 'tools/call', params }));
}

const scripted = definition('scripted-server');

test('sessions go on in their processes, shared and own, and new ones join', async () => {
  const first = agent();
  for (const session of ['a', 'b']) await first.sessions.open(session, scripted, initialize({}));
  await first.sessions.open('c', scripted, initialize({ sampling: {} }));
  const { peer } = await first.sessions.get('a', scripted);
  expect([await call(peer, 'a', 'count'), await call(peer, 'b', 'count')]).toEqual(['1', '2']);
  const carried = first.carry();
  await first.upstreams.close();

  const second = agent();
  expect(takeOver(second, known(scripted), { machine, carry: carried })).toEqual({ kept: 2, ended: 0 });
  const shared = (await second.sessions.get('b', scripted)).peer;
  expect(await call(shared, 'b', 'count')).toBe('3');
  await call(shared, 'a', 'changed');
  expect(second.unasked).toContainEqual(['a', 'b']);
  expect(await call((await second.sessions.get('c', scripted)).peer, 'c', 'count')).toBe('1');
  const { peer: joined } = await second.sessions.open('d', scripted, initialize({}));
  expect(await call(joined, 'd', 'count')).toBe('4');
  expect(processes.size).toBe(2);
});

test('a question that was open is answered through the next agent', async () => {
  const first = agent();
  const { peer } = await first.sessions.open('c', scripted, initialize({ sampling: {} }));
  const question = await new Promise<JsonRpcMessage>((resolve) => {
    const params = { name: 'do', arguments: { action: 'ask' } };
    const sink = { open: true, message: resolve, answer: quiet, fail: quiet };
    peer.request('c', { jsonrpc: '2.0', id: 1, method: 'tools/call', params }, sink);
  });
  const carried = first.carry();
  await first.upstreams.close();
  const second = agent();
  takeOver(second, known(scripted), { machine, carry: carried });
  const again = (await second.sessions.get('c', scripted)).peer;
  const heard = new Promise<string>((resolve) =>
    processes.get(1)?.stdout.on('data', (data: Buffer) => resolve(data.toString())),
  );
  again.notify('c', { jsonrpc: '2.0', id: (question as JsonRpcRequest).id, result: { said: 'yes' } });
  expect(await heard).toContain('yes');
});

test('a lane goes on without asking for its server’s era again, and its numbers do not repeat', async () => {
  const server = definition('modern-server');
  const pid = async (parts: ReturnType<typeof agent>) => {
    expect(await parts.eras.of(server)).toBe('modern');
    const peer = await parts.peers.get(server, 'lane');
    const message = modern(1, 'tools/call', { name: 'do', arguments: { action: 'pid' } }) as JsonRpcRequest;
    return textOf((await asked(peer, 'lane', message)) as JsonRpcResponse);
  };
  const first = agent();
  const before = await pid(first);
  const carried = first.carry();
  await first.upstreams.close();
  const second = agent();
  expect(takeOver(second, known(server), { machine, carry: carried })).toEqual({ kept: 1, ended: 0 });
  expect(await pid(second)).toBe(before);
  expect(processes.size).toBe(1);
});

test.each<[string, ServerDefinition[]]>([
  ['is configured otherwise', [definition('scripted-server', 'other')]],
  ['is there no more', []],
])('the process of a server that %s is ended', async (_how, definitions) => {
  const first = agent();
  await first.sessions.open('a', scripted, initialize({}));
  const carried = first.carry();
  const second = agent();
  expect(takeOver(second, known(...definitions), { machine, carry: carried })).toEqual({ kept: 0, ended: 1 });
  expect((await processes.get(1)?.exited)?.signal).toBe('SIGKILL');
  await expect(second.sessions.get('a', scripted)).rejects.toMatchObject({ code: 'session_unknown' });
});

test.each([undefined, null, 'rubbish', [null, {}, { stream: 9 }]])('nothing comes of %j', (carried) => {
  expect(takeOver(agent(), known(scripted), { machine, carry: carried })).toEqual({ kept: 0, ended: 0 });
});
