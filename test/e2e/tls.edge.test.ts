/**
 * `moorage up` that serves HTTPS, as its user starts it: SDK clients over TLS with a test authority, by certificate and by token;
 * and the command line that administers it from elsewhere.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { httpsFetch, type Tls } from '../support/https-fetch.ts';
import { moorage, moorageUp, project, type Running } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const file = (name: string) => join(ROOT, 'test/support/certificates', `${name}.pem`);
const pem = (name: string) => readFileSync(file(name));
const ca = pem('authority');
const { dir } = project({
  mcpServers: {
    time: { runtime: 'edge', tools: join(ROOT, 'servers/time.ts') },
    scripted: {
      runtime: 'process',
      command: process.execPath,
      args: [join(ROOT, 'test/support/scripted-server.mjs')],
    },
  },
  edge: { tls: { cert: file('server'), key: file('server'), clientCa: file('authority') } },
  auth: { tokens: true, mtls: { clients: [{ name: 'ci', subject: 'CN=ci,O=Example\\, Inc.,C=CH' }] } },
});
let edge: Running;
beforeAll(async () => {
  edge = await moorageUp(dir);
});
afterAll(() => edge?.stop());

const token = async (...args: string[]) => (await moorage(dir, 'token', 'create', ...args)).trim();

/** An SDK client at a server. */
async function connect(server: string, tls: Tls, bearer?: string) {
  const client = new Client({ name: 'tls', version: '1' }, { capabilities: { sampling: {} } });
  const headers: Record<string, string> = bearer === undefined ? {} : { authorization: `Bearer ${bearer}` };
  const options = { fetch: httpsFetch(tls), requestInit: { headers } };
  const transport = new StreamableHTTPClientTransport(new URL(`${edge.url}/${server}/mcp`), options);
  await client.connect(transport);
  return client;
}

describe('clients', () => {
  test('are told the address at which they find TLS', () => {
    expect(edge.url).toMatch(/^https:\/\/127\.0\.0\.1:[0-9]+$/);
    expect(edge.output()).toContain(`"url": "${edge.url}/time/mcp"`);
  });

  test.each<[string, () => Promise<[Tls, string?]>]>([
    ['a certificate', async () => [{ ca, cert: pem('client'), key: pem('client') }]],
    ['a token', async () => [{ ca }, await token('--name', 'client')]],
  ])('are let in with %s: calls, questions and what is said unasked cross it', async (_, credential) => {
    const [tls, bearer] = await credential();
    const client = await connect('scripted', tls, bearer);
    const changed = Promise.withResolvers<void>();
    client.setNotificationHandler('notifications/tools/list_changed', () => changed.resolve());
    client.setRequestHandler('sampling/createMessage', () => ({
      role: 'assistant',
      content: { type: 'text', text: 'asked over TLS' },
      model: 'm',
    }));
    const answer = await client.callTool({ name: 'do', arguments: { action: 'ask' } });
    expect(JSON.stringify(answer.content)).toContain('asked over TLS');
    await client.callTool({ name: 'do', arguments: { action: 'changed' } });
    await changed.promise;
    await client.close();
  });

  test.each<[string, Tls, RegExp]>([
    ['nothing', { ca }, /401|Unauthorized|Say who you are/],
    [
      'a certificate of another authority',
      { ca, cert: pem('stranger'), key: pem('stranger') },
      /401|Unauthorized|trusted/,
    ],
    ['no authority that signed the edge’s', { ca: pem('stranger') }, /certificate/],
  ])('are not with %s', async (_, tls, why) => {
    await expect(connect('time', tls)).rejects.toThrow(why);
  });
});

describe('the command line elsewhere', () => {
  const elsewhere = mkdtempSync(join(tmpdir(), 'moorage-elsewhere-'));
  /** Its exit code, and everything that it printed. */
  const run = (args: readonly string[], env: NodeJS.ProcessEnv = {}, url = edge.url) =>
    new Promise<{ code: number; out: string; err: string }>((resolve) => {
      const where = ['--url', url, '--config', join(elsewhere, 'none.jsonc'), '--state', join(elsewhere, 'state')];
      const whole = { ...process.env, NODE_EXTRA_CA_CERTS: file('authority'), MOORAGE_TOKEN: admin, ...env };
      execFile(process.execPath, ['cli/moorage.ts', ...args, ...where], { cwd: ROOT, env: whole }, (error, out, err) =>
        resolve({ code: error === null ? 0 : Number(error.code), out, err }),
      );
    });
  let admin: string;
  let user: string;
  beforeAll(async () => {
    admin = await token('--name', 'admin', '--scope', 'admin');
    user = await token('--name', 'user');
  });

  test('administers it with a token: makes and lists tokens, reads the audit, the origins and a server’s tools', async () => {
    const made = await run(['token', 'create', '--name', 'from-elsewhere', '--server', 'time']);
    expect(made).toMatchObject({ code: 0, err: expect.stringContaining('"from-elsewhere"') });
    const client = await connect('time', { ca }, made.out.trim());
    expect((await client.listTools()).tools.length).toBeGreaterThan(0);
    await client.close();
    expect((await run(['token', 'list'])).out).toMatch(/from-elsewhere +\w+ +server:time +good/);
    expect((await run(['token', 'revoke', 'from-elsewhere'])).code).toBe(0);
    await expect(connect('time', { ca }, made.out.trim())).rejects.toThrow(/revoked|401|Unauthorized/);
    const audit = await run(['audit', '--since', '1d']);
    expect(audit.code).toBe(0);
    expect(audit.out).toContain('DELETE /tokens/from-elsewhere');
    expect((await run(['origin', 'list'])).out).toMatch(/^local .*connected +scripted$/m);
    expect((await run(['tools', 'diff', 'scripted'])).out).toContain('No client has listed the tools of scripted');
  });

  test.each<[string, () => [env: NodeJS.ProcessEnv, url?: string], RegExp]>([
    [
      'no token',
      () => [{ MOORAGE_TOKEN: '' }],
      /^Put a token with the scope "admin" for that edge into MOORAGE_TOKEN\.$/m,
    ],
    ['a token that is none', () => [{ MOORAGE_TOKEN: `moor_${'A'.repeat(46)}` }], /not known here|not good/],
    ['a token without the scope', () => [{ MOORAGE_TOKEN: user }], /scope "admin"/],
    ['an authority that it does not know', () => [{ NODE_EXTRA_CA_CERTS: '' }], /NODE_EXTRA_CA_CERTS/],
    ['plain http', () => [{}, 'http://mcp.example.com'], /not sent over plain http/],
    ['an address that is none', () => [{}, 'mcp.example.com'], /--url takes an address/],
  ])('says what is wrong with %s, in a line', async (_, with_, why) => {
    for (const args of [['token', 'list'], ['audit']]) {
      const { code, err, out } = await run(args, ...with_());
      expect(err).toMatch(why);
      expect(err.trim().split('\n')).toHaveLength(1);
      expect([code === 0, out]).toEqual([false, '']);
    }
  });

  test('… with an edge that is away, and with what is no edge', async () => {
    const away = `https://127.0.0.1:${await freePort()}`;
    const refused = await run(['audit'], {}, away);
    expect(refused.err).toMatch(new RegExp(`^The edge at ${away} does not answer \\(connect ECONNREFUSED`));
    const other = createServer({ cert: pem('server'), key: pem('server') }, (_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Welcome</h1>');
    });
    await new Promise<void>((done) => other.listen(0, '127.0.0.1', done));
    // What joins it says the same.
    const code = 'office.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA';
    const joining = (url: string, env: NodeJS.ProcessEnv) => run(['origin', 'join', url, '--code', code], env);
    expect((await joining(away, {})).err).toContain('does not answer (connect ECONNREFUSED');
    expect((await joining(edge.url, { NODE_EXTRA_CA_CERTS: '' })).err).toContain('NODE_EXTRA_CA_CERTS');
    expect((await joining(edge.url, {})).err).toContain('This code is not good (any more)');
    const page = await run(['audit'], {}, `https://127.0.0.1:${(other.address() as AddressInfo).port}`);
    expect(page.err).toContain('is no edge of Moorage (status 200)');
    expect(page.err).not.toContain('Welcome');
    expect([refused.code, page.code]).not.toContain(0);
    other.close();
  });
});
