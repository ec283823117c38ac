/**
 * An origin's HTTP interface on loopback, as the edge meets it: signed grants, JSON or SSE answers, and nothing else of
 * the edge. Servers run as plain processes or are reached over HTTP.
 */
import { mkdtempSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportJWK, generateKeyPair, importJWK } from 'jose';
import { type OriginParts, originParts } from '../../origin/agent.ts';
import { originApi } from '../../origin/api.ts';
import type { Log } from '../../origin/log.ts';
import { Machines } from '../../origin/machines.ts';
import { Replays } from '../../origin/replays.ts';
import { Secrets } from '../../origin/secrets/secrets.ts';
import type { SecretStore } from '../../origin/secrets/store.ts';
import { machineDefinitions, type ServerDefinition, serverDefinitions } from '../../origin/server.ts';
import { isolationOf } from '../../shared/config/entry.ts';
import { parseConfig } from '../../shared/config.ts';
import { type EdgeKeys, signGrant } from '../../shared/grant.ts';
import type { JsonRpcMessage, JsonRpcResponse } from '../../shared/jsonrpc.ts';
import type { ChangedLane } from '../../shared/link.ts';
import { machineKeyOf } from '../../shared/machine-key.ts';
import { ERA_HEADER, MESSAGES_PATH, REPLAY_HEADER, SESSION_PATH } from '../../shared/origin-api.ts';
import { PROOF_HEADER, signProof } from '../../shared/proof.ts';

import { keepLines } from './run-folder.ts';

export const REVISION = '2026-07-28';

export interface SendOptions {
  readonly session: string;
  readonly server: string;
  readonly principal?: string;
  /** Machine key in the grant; default: the right one. */
  readonly machine?: string;
  readonly modern?: boolean;
  readonly replay?: boolean;
  readonly signal?: AbortSignal;
  readonly headers?: Record<string, string>;
}

/** One exchange. `messages` grows while it runs; `done` has the last message, which is the answer. */
export interface Exchange {
  readonly status: number;
  readonly contentType: string;
  readonly headers: Headers;
  readonly messages: JsonRpcMessage[];
  /** Ids of a stream's events. */
  readonly ids: string[];
  /** Names of a stream's events. */
  readonly names: string[];
  readonly done: Promise<JsonRpcResponse>;
}

export interface OriginUnderTest {
  /** Where it listens, and the edge's private key. */
  readonly base: string;
  readonly key: CryptoKey;
  readonly parts: OriginParts;
  readonly machines: Machines;
  readonly logged: string[];
  readonly unasked: { readonly sessions: readonly string[]; readonly message: JsonRpcMessage }[];
  /** Lists that changed at servers that lanes use. */
  readonly changed: { readonly lane: ChangedLane; readonly message: JsonRpcMessage; readonly starting: boolean }[];
  readonly definitions: ReadonlyMap<string, ServerDefinition>;
  post(message: object, options: SendOptions): Promise<Exchange>;
  /** The answer alone. A refusal of the exchange as a whole is thrown as its `ErrorBody`. */
  ask(message: object, options: SendOptions): Promise<JsonRpcResponse>;
  end(options: SendOptions): Promise<void>;
  /** A GET of the interface. */
  get(path: string, options: SendOptions): Promise<Response>;
  close(): Promise<void>;
}

/** A store without secrets. */
export const NO_SECRETS: Pick<SecretStore, 'find'> = { find: () => undefined };

export async function startOrigin(
  mcpServers: Record<string, object>,
  store: Pick<SecretStore, 'find'> = NO_SECRETS,
): Promise<OriginUnderTest> {
  const dir = mkdtempSync(join(tmpdir(), 'moorage-origin-'));
  const config = parseConfig(JSON.stringify({ mcpServers }));
  const servers = serverDefinitions(config);
  const logged: string[] = [];
  const note = (text: string) => void logged.push(text);
  const secrets = new Secrets(store);
  const log: Log = secrets.keptOutOf({
    debug: note,
    info: note,
    warn: note,
    error: note,
    server: (name, _machine, line) => note(`[${name}] ${line}`),
    machine: (key, line) => note(`[machine ${key}] ${line}`),
  });
  const machines = new Machines({
    definitions: machineDefinitions(servers),
    stateDir: dir,
    cacheDir: dir,
    configDir: process.cwd(),
    log,
  });
  const unasked: OriginUnderTest['unasked'] = [];
  const changed: OriginUnderTest['changed'][number][] = [];
  const definitions = new Map(servers.map((server) => [server.name, server]));
  const parts = originParts({
    host: machines,
    servers: definitions,
    secrets,
    journalPath: join(dir, 'streams.db'),
    log,
    unasked: (sessions, message) => {
      if (unasked.length < 1_000) unasked.push({ sessions, message });
    },
    changed: (lane, message, starting) => {
      if (changed.length < 1_000) changed.push({ lane, message, starting });
    },
  });
  const pair = await generateKeyPair('EdDSA', { extractable: true });
  const key = (await importJWK(await exportJWK(pair.privateKey), 'EdDSA')) as CryptoKey;
  const edgeKeys = (): EdgeKeys => [pair.publicKey];
  const replays = new Replays(Date.now);
  const api = createServer(
    originApi({
      ...parts,
      originId: 'o',
      edgeKeys,
      replays,
      servers: definitions,
      ended: (ended) => machines.ended(ended),
      log,
    }),
  );
  await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;

  const machineOf = async ({ server, session, principal = 'p' }: SendOptions) => {
    const definition = definitions.get(server);
    if (!definition) return '';
    return await machineKeyOf(definition.machine, isolationOf(definition.entry), { principal, session });
  };
  const exchange = async (
    method: string,
    path: string,
    options: SendOptions,
    text: string | null = null,
  ): Promise<Response> => {
    const claims = {
      origin: 'o',
      principal: options.principal ?? 'p',
      server: options.server,
      machine: options.machine ?? (await machineOf(options)),
      session: options.session,
    };
    const grant = await signGrant(key, claims, Date.now());
    const headers = new Headers({
      'content-type': 'application/json',
      authorization: `Bearer ${grant}`,
      ...(options.modern ? { [ERA_HEADER]: 'modern' } : {}),
      ...(options.replay ? { [REPLAY_HEADER]: '1' } : {}),
      ...options.headers,
    });
    const body = text === null ? null : new TextEncoder().encode(text);
    const proof = await signProof(key, 'o', { method, path, headers, grant, body }, crypto.randomUUID(), Date.now());
    headers.set(PROOF_HEADER, proof);
    return await fetch(base + path, { method, headers, body, signal: options.signal ?? null });
  };
  const post = async (message: object, options: SendOptions): Promise<Exchange> => {
    const text = JSON.stringify(options.replay ? [message].flat() : message);
    const response = await exchange('POST', MESSAGES_PATH, options, text);
    const messages: JsonRpcMessage[] = [];
    const ids: string[] = [];
    const names: string[] = [];
    const done = readMessages(response, messages, ids, names);
    done.catch(() => undefined);
    const { status, headers } = response;
    return { status, contentType: headers.get('content-type') ?? '', headers, messages, ids, names, done };
  };
  return {
    base,
    key,
    parts,
    machines,
    logged,
    unasked,
    changed,
    definitions,
    post,
    ask: async (message, options) => await (await post(message, options)).done,
    get: async (path, options) => await exchange('GET', path, options),
    end: async (options) => {
      await exchange('DELETE', SESSION_PATH, options);
    },
    close: async () => {
      keepLines(logged);
      await parts.close();
      await machines.close();
      api.closeAllConnections();
      await new Promise((resolve) => api.close(resolve));
    },
  };
}

async function readMessages(
  response: Response,
  messages: JsonRpcMessage[],
  ids: string[],
  names: string[],
): Promise<JsonRpcResponse> {
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
    const text = await response.text();
    if (text === '') return { jsonrpc: '2.0', id: null, error: { code: response.status, message: 'no body' } };
    const body = JSON.parse(text) as JsonRpcMessage;
    if (!response.ok) throw body;
    messages.push(body);
    return body as JsonRpcResponse;
  }
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    rest += decoder.decode(chunk, { stream: true });
    const events = rest.split('\n\n');
    rest = events.pop() ?? '';
    for (const event of events) {
      ids.push(...(/^id: (.*)$/m.exec(event)?.slice(1) ?? []));
      names.push(...(/^event: (.*)$/m.exec(event)?.slice(1) ?? []));
      const data = /^data: (.+)$/m.exec(event)?.[1];
      if (data !== undefined) messages.push(JSON.parse(data) as JsonRpcMessage);
    }
  }
  const last = messages.at(-1);
  if (!last || 'method' in last) throw new Error('The stream ended without an answer.');
  return last as JsonRpcResponse;
}

export const initialize = (capabilities: object = {}, protocolVersion = '2025-11-25') => ({
  jsonrpc: '2.0',
  id: 'init',
  method: 'initialize',
  params: { protocolVersion, capabilities, clientInfo: { name: 'test', version: '1' } },
});

export const request = (id: string | number, method: string, params: object = {}) => ({
  jsonrpc: '2.0',
  id,
  method,
  params,
});

/** A request of the stateless era. */
export const modern = (
  id: string | number,
  method: string,
  params: object = {},
  capabilities: object = {},
  meta: object = {},
) => ({
  jsonrpc: '2.0',
  id,
  method,
  params: {
    ...params,
    _meta: {
      'io.modelcontextprotocol/protocolVersion': REVISION,
      'io.modelcontextprotocol/clientInfo': { name: 'test', version: '1' },
      'io.modelcontextprotocol/clientCapabilities': capabilities,
      ...meta,
    },
  },
});

export const textOf = (response: JsonRpcResponse): string | undefined =>
  'result' in response
    ? (response.result.content as { text?: string }[] | undefined)?.[0]?.text
    : `error ${response.error.code}: ${response.error.message}`;

/** Half a minute at most: a bound for what never comes, not for what a loaded host makes slow. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('What was waited for did not happen.');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
