/** Who is served by which machine, at the origin's interface: grants of several principals and sessions. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { discoveryOf } from '../../origin/server.ts';
import { machineKeyOf } from '../../shared/machine-key.ts';
import {
  initialize,
  modern,
  type OriginUnderTest,
  request,
  type SendOptions,
  startOrigin,
  textOf,
  until,
} from '../support/origin.ts';

const SCRIPT = new URL('../support/scripted-server.mjs', import.meta.url).pathname;
const server = { command: process.execPath, args: [SCRIPT] };
let origin: OriginUnderTest;

beforeAll(async () => {
  origin = await startOrigin({
    all: server,
    each: { ...server, isolation: 'principal' },
    once: { ...server, isolation: 'session' },
    left: { ...server, isolation: 'principal', machine: 'pair' },
    right: { ...server, isolation: 'principal', machine: 'pair' },
  });
});
afterAll(async () => await origin.close());

let last = 0;
async function count(options: SendOptions): Promise<string | undefined> {
  last += 1;
  return textOf(await origin.ask(request(last, 'tools/call', { name: 'do', arguments: { action: 'count' } }), options));
}
async function opened(server: string, session: string, principal: string): Promise<SendOptions> {
  const options = { server, session, principal };
  await origin.ask(initialize(), options);
  return options;
}
const keys = () => origin.machines.states().map(({ key }) => key);

describe('a machine', () => {
  test('of isolation "server" is everybody’s', async () => {
    const [a, b] = [await opened('all', 'all-a', 'ann'), await opened('all', 'all-b', 'bob')];
    expect([await count(a), await count(b), await count(a)]).toEqual(['1', '2', '3']);
  });

  test('of isolation "principal" is one principal’s, in all sessions', async () => {
    const sessions = await Promise.all([
      opened('each', 'each-a', 'ann'),
      opened('each', 'each-b', 'bob'),
      opened('each', 'each-c', 'ann'),
    ]);
    const counts: unknown[] = [];
    for (const session of [...sessions, ...sessions]) counts.push(await count(session));
    expect(counts).toEqual(['1', '1', '2', '3', '2', '4']);
    const owners = origin.machines.states().filter(({ machine }) => machine === 'each');
    expect(owners.map(({ owner, isolation }) => [owner, isolation]).sort()).toEqual([
      ['ann', 'principal'],
      ['bob', 'principal'],
    ]);
  });

  test('is one principal’s in the era without sessions too', async () => {
    const call = async (principal: string) => {
      last += 1;
      const options = { server: 'each', session: `lane-${principal}`, principal, modern: true };
      return textOf(
        await origin.ask(modern(last, 'tools/call', { name: 'do', arguments: { action: 'count' } }), options),
      );
    };
    const counts = [await call('cay'), await call('dan'), await call('cay')];
    expect(counts).toEqual(['1', '1', '2']);
  });

  test('of isolation "session" is one session’s, and ends with it', async () => {
    const [a, b] = [await opened('once', 'once-a', 'ann'), await opened('once', 'once-b', 'ann')];
    expect([await count(a), await count(b), await count(a)]).toEqual(['1', '1', '2']);
    const [first, second] = [
      await machineKeyOf('once', 'session', { principal: 'ann', session: 'once-a' }),
      await machineKeyOf('once', 'session', { principal: 'ann', session: 'once-b' }),
    ];
    expect(keys()).toEqual(expect.arrayContaining([first, second]));
    await origin.end(a);
    await until(() => !keys().includes(first));
    expect(keys()).toContain(second);
    expect(await count(b)).toBe('2');
  });

  test('that servers share by name is shared by the servers of one principal', async () => {
    const sessions = [
      await opened('left', 'left-a', 'ann'),
      await opened('right', 'right-a', 'ann'),
      await opened('right', 'right-b', 'bob'),
    ];
    for (const session of sessions) await count(session);
    const pairs = keys().filter((key) => key.startsWith('pair.p-'));
    expect(pairs).toHaveLength(2);
  });

  test('is not reached by a key that the principal or session does not make', async () => {
    const ann = await machineKeyOf('each', 'principal', { principal: 'ann', session: 's' });
    for (const machine of [ann, 'each', 'all', 'once']) {
      const attempt = origin.ask(initialize(), { server: 'each', session: 'evil', principal: 'eve', machine });
      await expect(attempt).rejects.toMatchObject({ error: { code: 'route_stale' } });
    }
    // A session that another principal opened, under eve's own and rightful key.
    await opened('each', 'each-own', 'ann');
    const theirs = { server: 'each', session: 'each-own', principal: 'eve' };
    await expect(origin.ask(request(1, 'tools/list'), theirs)).rejects.toMatchObject({
      error: { code: 'session_unknown' },
    });
  });

  test('of one’s own has lists of one’s own', () => {
    const copies = (name: string) => {
      const definition = origin.definitions.get(name);
      return definition && discoveryOf(definition).copies;
    };
    expect([copies('all'), copies('each'), copies('once')]).toEqual(['all', 'principal', 'principal']);
  });
});

test('keys tell neither subject nor session, and no two callers share one', async () => {
  const callers = ['ann', 'bob'].flatMap((principal) => ['s', 't'].map((session) => ({ principal, session })));
  const all = await Promise.all(
    (['server', 'principal', 'session'] as const).map((isolation) =>
      Promise.all(callers.map((caller) => machineKeyOf('m', isolation, caller))),
    ),
  );
  expect(all.map((each) => new Set(each).size)).toEqual([1, 2, 4]);
  expect(all.flat().join()).not.toMatch(/ann|bob/);
  expect(all[1]?.[0]).toMatch(/^m\.p-[0-9a-f]{32}$/);
});
