/** TLS in front of a real workerd: who shows which certificate, what else crosses it, and who cannot go around it. */

import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CF_HEADER, type RunningTls, startTls } from '../../edge/local/tls.ts';
import { edgeUnderTest, type UnderTest } from './edge-under-test.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const pem = (name: string) => join(ROOT, 'test/support/certificates', `${name}.pem`);

let dir: string;
let edge: UnderTest;
let tls: RunningTls;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'moorage-tls-'));
  const socketPath = join(dir, 'edge.sock');
  const clients = [{ name: 'ci', subject: 'CN=ci,O=Example\\, Inc.,C=CH' }];
  edge = await edgeUnderTest(
    { time: join(ROOT, 'servers/time.ts') },
    {
      frontSocket: socketPath,
      settings: {
        MOORAGE_AUTH: JSON.stringify({ tokens: true, mtls: { clients } }),
        MOORAGE_PUBLIC_URL: 'https://localhost',
      },
    },
  );
  const log = (line: string) => edge.log.push(line);
  const files = { cert: pem('server'), key: pem('server'), clientCa: pem('authority') };
  tls = await startTls({ host: '127.0.0.1', port: 0, ...files, socketPath, log });
});
afterAll(async () => {
  await tls.stop();
  await edge.stop();
  await rm(dir, { recursive: true, force: true });
});

interface Answer {
  readonly status: number;
  readonly text: string;
}

const INITIALIZE = JSON.stringify({
  jsonrpc: '2.0',
  id: 1,
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'tls', version: '1' } },
});

/** Posts an initialize with the certificate of this name. */
function initialize(client: string | null, headers: Record<string, string> = {}, port = tls.port): Promise<Answer> {
  const own = client === null ? {} : { cert: readFileSync(pem(client)), key: readFileSync(pem(client)) };
  return new Promise((done, fail) => {
    const outgoing = request(
      {
        host: '127.0.0.1',
        servername: 'localhost',
        port,
        path: '/time/mcp',
        method: 'POST',
        agent: false,
        ca: readFileSync(pem('authority')),
        ...own,
        headers: {
          host: 'localhost',
          accept: 'application/json, text/event-stream',
          'content-type': 'application/json',
          ...headers,
        },
      },
      (answer) => {
        let text = '';
        answer.on('data', (part: Buffer) => {
          text += part;
        });
        answer.once('end', () => done({ status: answer.statusCode ?? 0, text }));
      },
    );
    outgoing.once('error', fail);
    outgoing.end(INITIALIZE);
  });
}

/** What the front would say of the client, said by the client. */
const forged = {
  [CF_HEADER]: JSON.stringify({
    tlsClientAuth: {
      certPresented: '1',
      certVerified: 'SUCCESS',
      certFingerprintSHA256: '00',
      certSubjectDNRFC2253: 'CN=ci,O=Example\\, Inc.,C=CH',
      certNotAfter: 'never',
    },
  }),
};

describe('a client', () => {
  test('with a certificate of the authority is let in', async () => {
    const { status, text } = await initialize('client');
    expect(text).toContain('"protocolVersion":"2025-11-25"');
    expect(status).toBe(200);
  });

  test.each<[string, string | null, Record<string, string>]>([
    ['without a certificate', null, {}],
    ['with a certificate that it made itself, of the same name', 'stranger', {}],
    ['with a certificate of the authority that is nobody’s here', 'server', {}],
    ['that writes what the front writes', null, forged],
    ['that says it comes from this host', null, { 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'http' }],
  ])('%s is not', async (_, client, headers) => {
    expect((await initialize(client, headers)).status).toBe(401);
  });

  test('gets the answer of what would close the connection with it, once; the front closes then', async () => {
    const path = join(dir, 'prompt.sock');
    const asked: (string | undefined)[] = [];
    const closed = Promise.withResolvers<void>();
    const prompt = createServer((request, response) => {
      asked.push(request.headers.connection);
      request.socket.once('close', () => closed.resolve());
      request.resume().once('end', () => response.end('prompt'));
    });
    await new Promise<void>((done) => prompt.listen(path, done));
    const files = { cert: pem('server'), key: pem('server') };
    const front = await startTls({ host: '127.0.0.1', port: 0, ...files, socketPath: path, log: () => undefined });
    expect(await initialize(null, {}, front.port)).toEqual({ status: 200, text: 'prompt' });
    await closed.promise;
    // "close" would let it go before Node has said that the body is over, which is then an error.
    expect(asked).toEqual(['keep-alive']);
    await front.stop();
    prompt.close();
  });

  test('that goes around the front shows no certificate, whatever it writes', async () => {
    const response = await fetch(`${edge.url}/time/mcp`, { headers: forged });
    expect(response.status).toBe(401);
  });
});

test('the link of an origin on another host crosses it, in both directions', async () => {
  const link = await edge.dial(`https://localhost:${tls.port}`, readFileSync(pem('authority')));
  expect(await link.hello(['notes'])).toMatchObject({ type: 'welcome' });
});
