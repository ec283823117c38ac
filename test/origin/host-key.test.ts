/** The key of an origin for SSH: made once, never one that nothing can read. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type KeyPair, loadHostKey, makeKeyPair } from '../../origin/shell/host-key.ts';

let dir: string;
const warn = vi.fn();
const nothing = () => undefined;
const log = { debug: nothing, info: nothing, warn, error: nothing, server: nothing, machine: nothing };
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'moorage-host-key-'));
  warn.mockClear();
});
afterEach(() => rmSync(dir, { recursive: true }));

const make = (): KeyPair => ssh2.utils.generateKeyPairSync('ed25519', { comment: 'made' });
const path = () => join(dir, 'ssh_host_ed25519_key');

/** A pair as ssh2 makes it once in 256 times. */
function malformed(): KeyPair {
  for (let tries = 0; tries < 20_000; tries += 1) {
    const pair = make();
    if (ssh2.utils.parseKey(pair.private) instanceof Error) return pair;
  }
  throw new Error('ssh2 makes sound keys only: makeKeyPair need not look at them any more.');
}

test('a pair that ssh2 itself cannot read is not used', () => {
  const [bad, good] = [malformed(), makeKeyPair('good')];
  const made = [bad, bad, good];
  expect(makeKeyPair('x', () => made.shift() ?? bad)).toBe(good);
  expect(() => makeKeyPair('x', () => bad)).toThrow('no key');
});

test('the key is made once, for its owner alone', () => {
  const key = loadHostKey(dir, log);
  expect(loadHostKey(dir, log)).toBe(key);
  expect(statSync(path()).mode & 0o777).toBe(0o600);
  expect(readFileSync(`${path()}.pub`, 'utf8')).toMatch(/^ssh-ed25519 \S+ moorage\n$/);
  expect(warn).not.toHaveBeenCalled();
});

test.each(['', 'torn'])('a stored key that cannot be read (%j) is replaced, and this is said', (text) => {
  writeFileSync(path(), text);
  const key = loadHostKey(dir, log);
  expect(ssh2.utils.parseKey(key)).not.toBeInstanceOf(Error);
  expect(readFileSync(path(), 'utf8')).toBe(key);
  expect(warn).toHaveBeenCalledExactlyOnceWith(expect.stringContaining('host key'));
});
