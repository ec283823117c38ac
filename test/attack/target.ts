/**
 * What the attacks are made against: a real workerd with every kind of credential on, an OIDC issuer, two principals with
 * tokens of their own, a policy, limits; behind it a scripted origin; and the agent's own HTTP interface beside it.
 */
import { connect } from 'node:net';
import { join } from 'node:path';
import { importKey } from '../../shared/grant.ts';
import { signOwnerToken } from '../../shared/owner.ts';
import { edgeUnderTest, type UnderTest, WireClient } from '../edge/edge-under-test.ts';
import { keyPair, plain } from '../edge/scripted-origin.ts';
import { OidcIssuer } from '../support/oidc.ts';
import { type OriginUnderTest, startOrigin } from '../support/origin.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

export interface Token {
  readonly id: string;
  readonly token: string;
}

export interface Target {
  readonly edge: UnderTest;
  readonly issuer: OidcIssuer;
  readonly origin: OriginUnderTest;
  /** May use the server `notes`. */
  readonly mallory: Token;
  /** May use every server. */
  readonly alice: Token;
  /** A fresh session of alice at `notes`. */
  session(): Promise<WireClient>;
  client(server: string, token: string): WireClient;
  ownerToken(): Promise<string>;
  admin(method: string, path: string, body?: unknown): Promise<Response>;
  /** Bytes as they are, and everything that comes back. */
  raw(bytes: string | Buffer): Promise<string>;
  stop(): Promise<void>;
}

export const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

export async function startTarget(): Promise<Target> {
  const issuer = await OidcIssuer.start('RS256');
  const owner = await keyPair();
  const ownerKey = await importKey(owner.privateJwk);
  const ownerToken = () => signOwnerToken(ownerKey, edge.url, crypto.randomUUID(), Date.now());
  const edge = await edgeUnderTest(
    { time: join(ROOT, 'servers/time.ts') },
    {
      loopbackFetch: true,
      settings: {
        MOORAGE_AUTH: JSON.stringify({ tokens: true, jwt: [{ issuer: issuer.url, scopes: ['mcp'] }], oauth: {} }),
        MOORAGE_OWNER_KEY: JSON.stringify(owner.publicJwk),
        MOORAGE_LIMITS: JSON.stringify({ servers: { shared: { rate: '24/d', burst: 40 } } }),
        MOORAGE_ACCESS: JSON.stringify([
          { who: ['*'], servers: ['*'], effect: 'allow' },
          { who: ['*'], servers: ['notes'], tools: ['delete_*', `${'*a'.repeat(30)}*b`], effect: 'deny' },
        ]),
      },
    },
  );
  edge.origin.handler = plain;
  const link = await edge.dial();
  await link.hello(['notes', 'bank', 'shared']);
  const admin = async (method: string, path: string, body?: unknown) =>
    await fetch(`${edge.url}/admin/api${path}`, {
      method,
      headers: { ...bearer(await ownerToken()), 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  const token = async (name: string, scopes: string[]) =>
    (await (
      await admin('POST', '/tokens', { name, subject: name, scopes, groups: [], expiresAt: null })
    ).json()) as Token;
  const alice = await token('alice', ['mcp']);
  const mallory = await token('mallory', ['server:notes']);
  const client = (server: string, secret: string) => new WireClient(() => edge.url, server, bearer(secret));
  const origin = await startOrigin({
    notes: { runtime: 'process', command: process.execPath, args: [join(ROOT, 'test/support/scripted-server.mjs')] },
  });
  return {
    edge,
    issuer,
    origin,
    alice,
    mallory,
    client,
    ownerToken,
    admin,
    session: async () => {
      const opened = client('notes', alice.token);
      await opened.initialize();
      return opened;
    },
    raw: (bytes) => rawExchange(Number(new URL(edge.url).port), bytes),
    stop: async () => {
      await origin.close();
      issuer.close();
      await edge.stop();
    },
  };
}

/** Until the other side closes, or has been silent for a while after it has answered. */
function rawExchange(port: number, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    let answer = '';
    socket.setTimeout(1_000, () => socket.destroy());
    socket.on('data', (part: Buffer) => {
      answer += part.toString('latin1');
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(answer));
    socket.write(bytes);
  });
}
