/**
 * Cloudflare Access in front of an origin, and in front of the edge that an origin belongs to: what has the right service
 * token passes, what lacks it is told so in words, and the token is seen by nobody else. Real workerd, agents and SDK clients;
 * Access is a proxy that refuses as Access does (`support/access-proxy.ts`).
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type AdminClient, adminOf } from '../../cli/admin.ts';
import { enrol, loadEnrolled, rotate } from '../../router/enrolled.ts';
import { createRouter, type Router } from '../../router/router.ts';
import { type RunningOrigin, runOrigin } from '../../router/run-origin.ts';
import { parseConfigObject } from '../../shared/config.ts';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import { WireClient } from '../edge/edge-under-test.ts';
import { postModern } from '../edge/modern-client.ts';
import { type AccessProxy, accessProxy, type Refusal } from '../support/access-proxy.ts';
import { freePort } from '../support/free-port.ts';
import { connect } from '../support/moorage.ts';
import { keepLines, PLANTED } from '../support/run-folder.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), 'moorage-access-'));
const [edgeState, officeState] = [join(dir, 'edge'), join(dir, 'office')];
const token = (name: string) => ({ clientId: `${name}.access`, clientSecret: `${PLANTED}${name}` });
const [atOrigin, atEdge, stranger] = [token('origin'), token('edge'), token('stranger')];
const REFUSALS: Refusal[] = ['forbidden', 'login', 'unauthorized', 'page'];
const before = { ...process.env };

let router: Router;
let admin: AdminClient;
let office: RunningOrigin;
let server: Server;
let originDoor: AccessProxy;
let edgeDoor: AccessProxy;
const seen: IncomingHttpHeaders[] = [];
const said: string[] = [];

beforeAll(async () => {
  process.env.MOORAGE_ORIGIN_ACCESS = JSON.stringify({ office: atOrigin });
  router = await createRouter(
    { mcpServers: { time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') } } },
    { stateDir: edgeState, configDir: ROOT, log: (line) => said.push(line) },
  );
  admin = await adminOf({ config: 'unused', state: edgeState });
  server = await recordingServer();
  const address = `127.0.0.1:${await freePort()}`;
  originDoor = await accessProxy(() => `http://${address}`, { token: atOrigin, refusal: 'forbidden' });
  edgeDoor = await accessProxy(() => router.url, { token: atEdge, refusal: 'forbidden' });
  const { port } = server.address() as AddressInfo;
  const startOffice = async () => {
    const at = `http://127.0.0.1:${port}`;
    const mcpServers = { there: { url: `${at}/mcp` }, newer: { url: `${at}/newer` } };
    const config = parseConfigObject({ mcpServers, origin: { listen: address } });
    const log = (line: string) => said.push(line);
    office = await runOrigin(config, { configDir: ROOT, stateDir: officeState, log });
  };
  starting = startOffice;
}, 60_000);
let starting: () => Promise<void>;
afterAll(async () => {
  await office?.close();
  await router?.close();
  await originDoor?.close();
  await edgeDoor?.close();
  server?.close();
  keepLines(said);
  for (const name of ['MOORAGE_ORIGIN_ACCESS', 'MOORAGE_EDGE_ACCESS']) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
});
beforeEach(() => {
  originDoor.rule = { token: atOrigin, refusal: 'forbidden' };
  edgeDoor.rule = { token: atEdge, refusal: 'forbidden' };
  process.env.MOORAGE_EDGE_ACCESS = JSON.stringify(atEdge);
});

/** A server over HTTP, of 2025-11-25 at `/mcp` and of 2026-07-28 at `/newer`, that writes down which headers reach it. */
async function recordingServer(): Promise<Server> {
  const results: Record<string, object> = {
    initialize: {
      protocolVersion: '2025-11-25',
      capabilities: { tools: {} },
      serverInfo: { name: 'recording', version: '1' },
    },
    'server/discover': { supportedVersions: ['2026-07-28'], capabilities: { tools: {} } },
    'tools/list': { tools: [{ name: 'do', inputSchema: { type: 'object' } }] },
    'tools/call': { content: [{ type: 'text', text: 'done' }] },
  };
  const listening = createServer(async (request, response) => {
    seen.push(request.headers);
    const message = JSON.parse((await text(request)) || '{}') as JsonRpcRequest;
    if (request.method !== 'POST') return response.writeHead(405).end();
    if (message.id === undefined) return response.writeHead(202).end();
    const isNewer = request.url === '/newer';
    const found = isNewer && message.method === 'initialize' ? undefined : results[message.method];
    const result = !isNewer && message.method === 'server/discover' ? undefined : found;
    const answer = result
      ? { result: { ...result, ...(isNewer ? { resultType: 'complete' } : {}) } }
      : { error: { code: -32601, message: 'no such method' } };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ jsonrpc: '2.0', id: message.id, ...answer }));
  });
  await new Promise<void>((done) => listening.listen(0, '127.0.0.1', done));
  return listening;
}

const invited = async (id: string) =>
  ((await admin.post('/origins/invitations', { id, url: originDoor.url })) as { code: string }).code;
const holdsNothingOfAccess = (words: string) => {
  expect(words).not.toContain(PLANTED);
  expect(words).not.toMatch(/<|DOCTYPE|cloudflareaccess\.com/);
};

describe('in front of the edge', () => {
  test.each(REFUSALS)('an origin without the right token cannot join, and is told why: %s', async (refusal) => {
    edgeDoor.rule = { token: atEdge, refusal };
    const code = await invited('stray');
    for (const given of [undefined, JSON.stringify(stranger)]) {
      if (given === undefined) delete process.env.MOORAGE_EDGE_ACCESS;
      else process.env.MOORAGE_EDGE_ACCESS = given;
      const error = await enrol(join(dir, 'stray'), new URL(edgeDoor.url), code).catch((thrown: Error) => thrown);
      const [expected, words] =
        refusal === 'page' ? ['no_edge', 'no edge of Moorage'] : ['edge_refused', 'MOORAGE_EDGE_ACCESS'];
      expect(error).toMatchObject({ code: expected, message: expect.stringContaining(words) });
      holdsNothingOfAccess((error as Error).message);
    }
    expect(() => loadEnrolled(join(dir, 'stray'))).toThrow('belongs to no edge');
  });

  test('a token that is malformed is named and not shown', async () => {
    for (const given of ['nonsense', '{"clientId":"x"}', JSON.stringify({ ...atEdge, clientSecret: 'a\nb' })]) {
      process.env.MOORAGE_EDGE_ACCESS = given;
      const error = await enrol(officeState, new URL(edgeDoor.url), await invited('office')).catch((e: Error) => e);
      expect(error).toMatchObject({ code: 'bad_access', message: expect.stringContaining('MOORAGE_EDGE_ACCESS') });
      expect((error as Error).message).not.toContain(given);
    }
  });

  test('with it an origin joins, dials, changes its key; its owner administers the edge from there', async () => {
    await enrol(officeState, new URL(edgeDoor.url), await invited('office'));
    await starting();
    // A page in the edge's place is no word of it: the key stays what it is.
    edgeDoor.rule = { token: stranger, refusal: 'page' };
    const { key } = loadEnrolled(officeState);
    await expect(rotate(officeState)).rejects.toMatchObject({ code: 'no_edge' });
    expect(loadEnrolled(officeState).key).toEqual(key);
    edgeDoor.rule = { token: atEdge, refusal: 'forbidden' };
    await rotate(officeState);
    expect(loadEnrolled(officeState).key).not.toEqual(key);
    const { origins } = (await admin.get('/origins')) as { origins: object[] };
    expect(origins).toMatchObject([{ id: 'local' }, { id: 'office', connected: true, servers: ['there', 'newer'] }]);
    expect(edgeDoor.passed.length).toBeGreaterThanOrEqual(3);
    const { code, printed } = await cli(['origin', 'list', '--url', edgeDoor.url], { MOORAGE_TOKEN: 'moor_no' });
    // It got through Access; what it lacks then is the edge's own to say.
    expect([code, printed]).toEqual([1, expect.stringContaining('scope "admin"')]);
    const refused = await cli(['origin', 'list', '--url', edgeDoor.url], {
      MOORAGE_TOKEN: 'moor_no',
      MOORAGE_EDGE_ACCESS: JSON.stringify(stranger),
    });
    expect([refused.code, refused.printed]).toEqual([
      expect.any(Number),
      expect.stringContaining('MOORAGE_EDGE_ACCESS'),
    ]);
    expect(refused.code).not.toBe(0);
    holdsNothingOfAccess(refused.printed);
  });
});

test('an agent whose token is good no more says so, and is back when it is good again', async () => {
  const connected = async () => {
    const { origins } = (await admin.get('/origins')) as { origins: { id: string; connected: boolean }[] };
    return origins.find(({ id }) => id === 'office')?.connected;
  };
  for (const refusal of ['forbidden', 'login'] as const) {
    edgeDoor.rule = { token: stranger, refusal };
    const before = said.length;
    edgeDoor.cut();
    await expect.poll(() => said.slice(before).join('\n'), { timeout: 50_000 }).toContain('MOORAGE_EDGE_ACCESS');
    edgeDoor.rule = { token: atEdge, refusal };
    await expect.poll(connected, { timeout: 50_000 }).toBe(true);
  }
}, 120_000);

test.each<[string, object, Refusal, string]>([
  ['with the right token', atEdge, 'forbidden', ''],
  ['with another', stranger, 'forbidden', 'MOORAGE_EDGE_ACCESS'],
  ['with another, where people are led to a login', stranger, 'login', 'MOORAGE_EDGE_ACCESS'],
])('moorage stdio goes through Access in front of the edge %s', async (_, given, refusal, told) => {
  edgeDoor.rule = { token: atEdge, refusal };
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [join(ROOT, 'cli/moorage.ts'), 'stdio', 'time', '--url', edgeDoor.url],
    stderr: 'pipe',
    env: { ...(process.env as Record<string, string>), MOORAGE_EDGE_ACCESS: JSON.stringify(given) },
  });
  let printed = '';
  transport.stderr?.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const client = new Client({ name: 'test', version: '1' });
  const connecting = client.connect(transport, { timeout: 30_000 }).then(
    () => '',
    (error: Error) => error.message,
  );
  const said = await connecting;
  expect(said).toContain(told);
  holdsNothingOfAccess(said + printed);
  if (told === '') expect((await client.listTools()).tools.length).toBeGreaterThan(0);
  await client.close();
});

/** The command line as its user runs it; what it printed, and its exit code. */
async function cli(args: string[], env: NodeJS.ProcessEnv): Promise<{ code: number; printed: string }> {
  return await new Promise((resolve) => {
    execFile(
      process.execPath,
      ['cli/moorage.ts', ...args, '--config', join(dir, 'none.jsonc'), '--state', join(dir, 'none')],
      { cwd: ROOT, env: { ...process.env, ...env } },
      (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), printed: `${stdout}${stderr}` }),
    );
  });
}

describe('in front of an origin', () => {
  test.each(['nonsense', '{"clientId":"x","clientSecret":"y"}', JSON.stringify({ office: { clientId: 'x' } })])(
    'an edge is not started with tokens that are malformed, and does not show them: %s',
    async (given) => {
      const mcpServers = { time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') } } as const;
      process.env.MOORAGE_ORIGIN_ACCESS = given;
      const started = createRouter({ mcpServers }, { stateDir: join(dir, 'malformed'), configDir: ROOT });
      const error = await started.catch((thrown: Error) => thrown);
      expect(error).toMatchObject({ code: 'bad_access', message: expect.stringContaining('MOORAGE_ORIGIN_ACCESS') });
      expect((error as Error).message).not.toContain(given);
    },
  );

  test('the edge passes with its token, which goes no further', async () => {
    const { text: call, close } = await connect(router.url, 'there');
    expect(await call('do')).toBe('done');
    await close();
    const modern = await postModern(`${router.url}/newer/mcp`, 'tools/call', { name: 'do', arguments: {} });
    expect(await modern.json()).toMatchObject({ result: { content: [{ text: 'done' }] } });
    expect(originDoor.passed.length).toBeGreaterThan(0);
    expect(new Set(seen.map((headers) => headers['mcp-protocol-version']))).toContain('2026-07-28');
    expect(Object.keys(Object.assign({}, ...seen)).filter((name) => name.startsWith('cf-'))).toEqual([]);
    holdsNothingOfAccess(JSON.stringify(seen));
  });

  test.each(REFUSALS)('whoever calls is told that Access refuses the edge: %s', async (refusal) => {
    const wire = new WireClient(() => router.url, 'there');
    expect((await wire.initialize()).status).toBe(200);
    expect(await wire.call('tools/list')).toMatchObject({ result: {} });
    const reached = seen.length;
    originDoor.rule = { token: stranger, refusal };
    const error = { data: { code: 'origin_refused', origin: 'office', retryable: false } };
    const answers = [
      await wire.call('tools/call', { name: 'do', arguments: {} }),
      (await (
        await postModern(`${router.url}/there/mcp`, 'tools/call', { name: 'do', arguments: {} })
      ).json()) as object,
    ];
    for (const answer of answers) {
      expect(answer).toMatchObject({ error });
      expect(JSON.stringify(answer)).toContain('MOORAGE_ORIGIN_ACCESS');
      holdsNothingOfAccess(JSON.stringify(answer));
    }
    expect(seen.length).toBe(reached);
    // What is known without the origin is answered all the same.
    expect(await wire.call('tools/list')).toMatchObject({ result: { tools: [{ name: 'do' }] } });
    originDoor.rule = { token: atOrigin, refusal };
    expect(await wire.call('tools/call', { name: 'do', arguments: {} })).toMatchObject({ result: {} });
  });
});

test('no log has a token of Access or a page of it', async () => {
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.log'));
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) holdsNothingOfAccess(readFileSync(join(dir, file), 'utf8'));
  holdsNothingOfAccess(said.join('\n'));
});
