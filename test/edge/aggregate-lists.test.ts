/** What a server lists that is no entry of its list takes nothing else with it. */
import { expect, test } from 'vitest';
import { type ListMethod, listAll, UNAVAILABLE } from '../../edge/aggregate/lists.ts';
import { UriNames } from '../../edge/aggregate/names.ts';
import { MoorageError } from '../../shared/errors.ts';

const schema = { type: 'object' };
const trap = { toString: 1, toJSON: 1 };

test.each<[ListMethod, string, string, object, unknown[]]>([
  [
    'tools/list',
    'tools',
    'name',
    { name: 'good', inputSchema: schema, future: { any: 1 }, annotations: { futureHint: 1 } },
    [null, 1, [], {}, { name: 'no schema' }, { name: 'null', inputSchema: null }, { name: trap, inputSchema: schema }],
  ],
  ['prompts/list', 'prompts', 'name', { name: 'good', future: 1 }, [{ name: 1 }, { name: 'bad', arguments: 'none' }]],
  [
    'resources/list',
    'resources',
    'uri',
    { name: 'good', uri: 'file:///good' },
    [{ name: 'no uri' }, { uri: 7, name: '7' }],
  ],
  [
    'resources/templates/list',
    'resourceTemplates',
    'uriTemplate',
    { name: 'good', uriTemplate: 'a:{b}' },
    [{ name: 'bad' }],
  ],
])('%s', async (method, key, id, good, malformed) => {
  const servers = ['fine', 'odd'];
  const result = await listAll({
    method,
    servers,
    cursor: undefined,
    page: async (server) => ({ [key]: server === 'odd' ? [...malformed, good] : [good] }),
    uris: await UriNames.of(servers),
    tools: ['*'],
  });
  const listed = result[key] as Record<string, unknown>[];
  expect(listed).toEqual([
    { ...good, [id]: expect.stringContaining('fine') },
    { ...good, [id]: expect.stringContaining('odd') },
  ]);
  expect(result._meta).toEqual({
    [UNAVAILABLE]: [{ server: 'odd', reason: `${malformed.length} of its entries are malformed, and left out.` }],
  });
});

test('what is missing is named in the order of the servers, whoever answers first', async () => {
  const servers = ['a', 'b', 'c'];
  const result = await listAll({
    method: 'tools/list',
    servers,
    cursor: undefined,
    page: async (server) => {
      // The first is the last to fail.
      for (let turn = server === 'a' ? 100 : 0; turn > 0; turn--) await undefined;
      throw new MoorageError('server_failed', `${server} is broken`);
    },
    uris: await UriNames.of(servers),
    tools: ['*'],
  });
  expect(result).toEqual({
    tools: [],
    _meta: { [UNAVAILABLE]: servers.map((server) => ({ server, reason: `${server} is broken` })) },
  });
});
