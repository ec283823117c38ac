import { expect, test } from 'vitest';
import { decideAnnouncement, type OriginRoute } from '../../edge/directory/route.ts';
import { DEFAULT_DISCOVERY } from '../../shared/link.ts';

const route = (name: string, origin: string): OriginRoute => ({
  server: name,
  runtime: 'vm',
  origin,
  machine: name,
  deployment: 'd1',
  discovery: DEFAULT_DISCOVERY,
});
const held = [route('wiki', 'other'), route('notes', 'local'), route('old', 'gone')];
const known = { edgeServers: new Set(['time']), origins: new Set(['local', 'other']) };
const server = (name: string) => ({ name, runtime: 'vm' as const, machine: name, deployment: 'd2' });

test.each([
  ['a new name', 'fresh', null],
  ['a name that it holds itself', 'notes', null],
  ['a name of an origin that is not known any more', 'old', null],
  ['a name of another origin', 'wiki', 'origin "other" has a server of this name'],
  ['a name of the edge', 'time', 'the edge itself runs a server of this name'],
])('%s', (_, name, reason) => {
  const { accepted, refused } = decideAnnouncement('local', [server(name)], held, known);
  expect(refused).toEqual(reason === null ? [] : [{ server: name, reason }]);
  expect(accepted.map((route) => [route.server, route.origin, route.deployment])).toEqual(
    reason === null ? [[name, 'local', 'd2']] : [],
  );
});

test('a name announced twice is taken once', () => {
  const { accepted, refused } = decideAnnouncement('local', [server('a'), server('a')], [], known);
  expect(accepted).toHaveLength(1);
  expect(refused).toEqual([{ server: 'a', reason: 'announced twice' }]);
});
