import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { expect, test } from 'vitest';
import { type Grant, importKey, signGrant, signLinkToken, verifyGrant, verifyLinkToken } from '../../shared/grant.ts';

const pair = async () => {
  const { publicKey, privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  return {
    sign: await importKey(await exportJWK(privateKey)),
    verify: await importKey(JSON.stringify(await exportJWK(publicKey))),
  };
};
const edge = await pair();
const other = await pair();
const NOW = Date.UTC(2026, 10, 21);
const grant: Grant = { origin: 'local', principal: 'anonymous', server: 'notes', machine: 'notes', session: 'abc' };
const refused = (promise: Promise<unknown>) => expect(promise).rejects.toMatchObject({ code: 'grant_invalid' });

test('a grant says the same on both sides', async () => {
  const token = await signGrant(edge.sign, grant, NOW);
  expect(await verifyGrant([edge.verify], token, 'local', NOW + 60_000)).toEqual(grant);
});

test('a grant is refused when it is old, from the future, for another origin, by another key, or changed', async () => {
  const token = await signGrant(edge.sign, grant, NOW);
  await refused(verifyGrant([edge.verify], token, 'local', NOW + 400_000));
  await refused(verifyGrant([edge.verify], token, 'local', NOW - 120_000));
  await refused(verifyGrant([edge.verify], token, 'elsewhere', NOW));
  await refused(verifyGrant([other.verify], token, 'local', NOW));
  const [head, body, signature] = token.split('.');
  const changed = Buffer.from(
    JSON.stringify({ ...JSON.parse(Buffer.from(body ?? '', 'base64url').toString()), server: 'bank' }),
  ).toString('base64url');
  await refused(verifyGrant([edge.verify], `${head}.${changed}.${signature}`, 'local', NOW));
});

test('unsigned, symmetric and foreign tokens are refused', async () => {
  const claims = Buffer.from(
    JSON.stringify({
      iss: 'moorage-edge',
      aud: 'local',
      sub: 'x',
      server: 's',
      machine: 'm',
      session: 'i',
      iat: NOW / 1000,
      exp: NOW / 1000 + 60,
    }),
  ).toString('base64url');
  const none = Buffer.from('{"alg":"none","typ":"moorage-grant+jwt"}').toString('base64url');
  await refused(verifyGrant([edge.verify], `${none}.${claims}.`, 'local', NOW));
  const hmac = await new SignJWT({ server: 's', machine: 'm', session: 'i' })
    .setProtectedHeader({ alg: 'HS256', typ: 'moorage-grant+jwt' })
    .setIssuer('moorage-edge')
    .setAudience('local')
    .setSubject('x')
    .setIssuedAt(NOW / 1000)
    .setExpirationTime(NOW / 1000 + 60)
    .sign(new TextEncoder().encode('0123456789abcdef0123456789abcdef'));
  await refused(verifyGrant([edge.verify], hmac, 'local', NOW));
  await refused(verifyGrant([edge.verify], await signLinkToken(edge.sign, 'local', NOW), 'local', NOW));
  await refused(verifyGrant([edge.verify], 'nonsense', 'local', NOW));
});

test('a link token speaks for its own origin only, for a minute', async () => {
  const token = await signLinkToken(edge.sign, 'home', NOW);
  await verifyLinkToken(edge.verify, token, 'home', NOW);
  await refused(verifyLinkToken(edge.verify, token, 'office', NOW));
  await refused(verifyLinkToken(other.verify, token, 'home', NOW));
  await refused(verifyLinkToken(edge.verify, token, 'home', NOW + 130_000));
});
