import { expect, test } from 'vitest';
import { parseConfiguration } from '../../origin/images/oci/manifest.ts';
import { argvOf, resolveUser, runConfigurationOf } from '../../origin/images/oci/run-as.ts';

const users = {
  passwd: 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n',
  group: 'root:x:0:\napp:x:1001:\naudio:x:29:app,root\nweb:x:33:\n',
};

test.each([
  ['', { uid: 0, gid: 0, groups: [29], home: '/root' }],
  ['app', { uid: 1000, gid: 1001, groups: [29], home: '/home/app' }],
  ['1000', { uid: 1000, gid: 1001, groups: [29], home: '/home/app' }],
  ['app:web', { uid: 1000, gid: 33, groups: [], home: '/home/app' }],
  ['5000', { uid: 5000, gid: 0, groups: [], home: '/' }],
  ['5000:6000', { uid: 5000, gid: 6000, groups: [], home: '/' }],
])('user %j', (text, user) => expect(resolveUser(text, users)).toEqual(user));

test.each(['nobody', 'app:nogroup', '99999999999'])('user %j is refused', (text) => {
  expect(() => resolveUser(text, users)).toThrow(/is not in its/);
});

const configuration = (config: object) =>
  parseConfiguration(JSON.stringify({ os: 'linux', architecture: 'amd64', config, rootfs: { diff_ids: [] } }));

test('environment and folder as Docker gives them', () => {
  const config = { Env: ['A=b=c', 'HOME=/srv', 'broken'], WorkingDir: 'work/../app/', User: 'app' };
  expect(runConfigurationOf(configuration(config), users)).toMatchObject({
    env: { A: 'b=c', HOME: '/srv', PATH: expect.stringContaining('/usr/local/bin') },
    workdir: '/app',
    uid: 1000,
  });
  expect(runConfigurationOf(configuration({}), users)).toMatchObject({ env: { HOME: '/root' }, workdir: '/' });
});

test.each([
  [['e'], ['c'], undefined, [], ['e', 'c']],
  [['e'], ['c'], undefined, ['x'], ['e', 'x']],
  [['e'], ['c'], 'own', [], ['own']],
  [['e'], ['c'], 'own', ['x'], ['own', 'x']],
  [[], ['c', 'd'], undefined, [], ['c', 'd']],
])('entrypoint %j and cmd %j with command %j and args %j start %j', (entrypoint, cmd, command, args, argv) => {
  const image = { ...runConfigurationOf(configuration({}), users), entrypoint, cmd };
  expect(argvOf(image, command, args)).toEqual(argv);
});

test('an image that starts nothing, or is for other processors, says so', () => {
  expect(() => argvOf(runConfigurationOf(configuration({}), users), undefined, [])).toThrow(/give "command"/);
  const arm = JSON.stringify({ os: 'linux', architecture: 'arm64', rootfs: { diff_ids: [] } });
  expect(() => parseConfiguration(arm)).toThrow(/linux\/arm64/);
});
