/** The scanner that every run ends with (test/support/run-folder.ts) finds what it is for. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { expect, test } from 'vitest';
import { mintToken, TOKEN_BYTES } from '../../edge/auth/tokens/format.ts';
import { PLANTED, secretsIn } from '../support/run-folder.ts';

test('secrets in logs are found, by kind, and nothing else is', async () => {
  // Outside of the run's own folder, which must stay clean.
  const folder = mkdtempSync(join(tmpdir(), '..', 'scanned-'));
  mkdirSync(join(folder, 'a/logs'), { recursive: true });
  const { privateKey } = await generateKeyPair('EdDSA', { extractable: true });
  const signed = await new SignJWT({ a: 1 }).setProtectedHeader({ alg: 'EdDSA' }).sign(privateKey);
  const { token } = mintToken(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)));
  const write = (name: string, text: string) => writeFileSync(join(folder, 'a/logs', name), text);
  write('agent.log', `info: sent ${PLANTED}x`);
  write('server-a.log.1', `Authorization: Bearer ${signed}`);
  write('server-b.log', JSON.stringify(await exportJWK(privateKey)));
  write('server-c.log', `token ${token}`);
  write('clean.log', 'machine notes: woken in 30 ms; grant eyJ refused; moor_ is a prefix');
  write('keys.json', JSON.stringify(await exportJWK(privateKey)));
  expect(secretsIn(folder).sort()).toEqual([
    '/a/logs/agent.log: a planted secret',
    '/a/logs/server-a.log.1: a signed token',
    '/a/logs/server-b.log: a private key',
    '/a/logs/server-c.log: a bearer token of Moorage',
  ]);
  rmSync(folder, { recursive: true });
});
