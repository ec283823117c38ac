/** Which keys may enter which machines. */
import { describe, expect, test } from 'vitest';
import { authorize, fingerprintOf, keysOfTeams, parseAuthorizedKeys } from '../../origin/shell/authorized-keys.ts';
import { makeKeyPair } from '../../origin/shell/host-key.ts';

const pairs = ['ann', 'bob', 'eve'].map((comment) => makeKeyPair(comment).public);
const [ann = '', bob = '', eve = ''] = pairs;
const blobOf = (text: string) => Buffer.from(text.split(' ')[1] ?? '', 'base64');

const servers = ['notes', 'staging-1', 'prod'];
const entered = (file: string, key: string) => {
  const { keys } = parseAuthorizedKeys(file);
  return servers.filter((server) => authorize(keys, blobOf(key), server));
};

describe('a line', () => {
  test.each([
    [ann, servers],
    [`  ${ann}  `, servers],
    [`servers="notes" ${ann}`, ['notes']],
    [`servers="notes,staging-*" ${ann}`, ['notes', 'staging-1']],
    [`restrict,servers="*,!prod",no-port-forwarding ${ann}`, ['notes', 'staging-1']],
    [`SERVERS="notes"\t${ann}`, ['notes']],
    [`# ${ann}`, []],
    [`servers="" ${ann}`, []],
    [`servers=notes ${ann}`, []],
    [`servers="notes ${ann}`, []],
    [`command="id" ${ann}`, []],
    [`servers="notes",from="10.0.0.1" ${ann}`, []],
    [`restrict,, ${ann}`, []],
    [ann.replace('ssh-ed25519', 'ssh-dss'), []],
    [ann.slice(0, 40), []],
  ])('%s', (line, expected) => {
    expect(entered(`${line}\n`, ann)).toEqual(expected);
    expect(entered(line, bob)).toEqual([]);
  });

  test('that is of no use is told by its number, and does not take the others with it', () => {
    const { keys, faults } = parseAuthorizedKeys(`# ours\ncommand="id" ${eve}\n\nnonsense\n${ann}\n`);
    expect(keys).toHaveLength(1);
    expect(faults).toEqual([expect.stringMatching(/^line 2: .*"command"/), expect.stringMatching(/^line 4: /)]);
  });
});

test('several lines with one key add up', () => {
  expect(entered(`servers="notes" ${ann}\nservers="prod" ${ann}\n`, ann)).toEqual(['notes', 'prod']);
});

test('teams name their keys, and the servers of these', () => {
  const keys = keysOfTeams({ ops: { servers: ['staging-*'], keys: [bob] } });
  expect(servers.filter((server) => authorize(keys, blobOf(bob), server))).toEqual(['staging-1']);
  expect(authorize(keys, blobOf(ann), 'staging-1')).toBeUndefined();
  expect(keys[0]?.name).toMatch(/^team ops \(SHA256:/);
  expect(() => keysOfTeams({ ops: { servers: ['*'], keys: ['ssh-ed25519 AAAA'] } })).toThrow('ssh.teams.ops');
});

test('a fingerprint is the one that ssh-keygen prints', () => {
  const known = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github';
  const { keys } = parseAuthorizedKeys(known);
  expect(keys.map(({ key }) => fingerprintOf(key))).toEqual(['SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU']);
});
