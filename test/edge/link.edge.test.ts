/** The link that an agent dials, the streams that its events reach, and what survives a restart of the edge. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EventReader, edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { keyPair, ScriptedLink } from './scripted-origin.ts';

const TIME = new URL('../../servers/time.ts', import.meta.url).pathname;

let edge: UnderTest;
beforeEach(async () => {
  edge = await edgeUnderTest({ time: TIME });
});
afterEach(() => edge.stop());

const opened = async (server = 'notes') => {
  const wire = new WireClient(() => edge.url, server);
  await wire.initialize();
  return wire;
};
const listening = async (wire: WireClient) => {
  const reader = new EventReader(await wire.get());
  expect(await reader.block()).toBe(': connected');
  return reader;
};
const changed = (n: number) => ({
  jsonrpc: '2.0',
  method: 'notifications/resources/updated',
  params: { uri: `note:${n}` },
});
const eventFrame = (seq: number, sessions: (string | undefined)[], message: unknown = changed(seq)) => ({
  type: 'event',
  seq,
  sessions,
  message,
});

describe('who may dial', () => {
  test('an origin that is not known, or whose key is another', async () => {
    const stranger = await keyPair();
    for (const origin of ['local', 'nobody']) {
      await expect(ScriptedLink.dial(edge.url, origin, stranger.privateJwk)).rejects.toThrow('401');
    }
  });

  test('a GET that is no upgrade', async () => {
    expect((await fetch(`${edge.url}/_origin/link`)).status).toBe(400);
  });
});

test('names that others hold are refused with the reason, the rest is served', async () => {
  const link = await edge.dial();
  expect(await link.hello(['notes', 'time'])).toEqual({
    type: 'welcome',
    version: 1,
    now: expect.any(Number) as number,
    keys: expect.any(String) as string,
    refused: [{ server: 'time', reason: 'the edge itself runs a server of this name' }],
  });
  const { servers } = (await (await fetch(`${edge.url}/`)).json()) as { servers: { name: string }[] };
  expect(servers.map(({ name }) => name)).toEqual(['notes', 'time']);
});

test('a hello without a server takes it away', async () => {
  const link = await edge.dial();
  await link.hello(['notes', 'wiki']);
  await link.hello(['wiki']);
  expect((await new WireClient(() => edge.url, 'notes').initialize()).status).toBe(404);
});

test('a newer link of the same origin takes over', async () => {
  const older = await edge.dial();
  await older.hello(['notes']);
  const newer = await edge.dial();
  expect(await older.closed).toBe(4000);
  expect(await newer.hello(['notes'])).toMatchObject({ type: 'welcome' });
});

test('what is no frame closes the link', async () => {
  const link = await edge.dial();
  link.send({ type: 'nonsense' });
  expect(await link.closed).toBe(1008);
});

test('an event before hello closes the link', async () => {
  const link = await edge.dial();
  link.send(eventFrame(1, ['x']));
  expect(await link.closed).toBe(1008);
});

describe('an event', () => {
  test('reaches the streams of its sessions, and of no other', async () => {
    const link = await edge.dial();
    await link.hello(['notes']);
    const [ada, bob, eve] = [await opened(), await opened(), await opened()];
    const streams = [await listening(ada), await listening(bob), await listening(eve)] as const;
    link.send(eventFrame(1, [ada.session, bob.session]));
    expect(await link.next()).toEqual({ type: 'ack', seq: 1 });
    link.send(eventFrame(2, [eve.session]));
    expect(await streams[0].message()).toEqual(changed(1));
    expect(await streams[1].message()).toEqual(changed(1));
    expect(await streams[2].message()).toEqual(changed(2));
  });

  test('waits for a client that holds no stream, in order', async () => {
    const link = await edge.dial();
    await link.hello(['notes']);
    const wire = await opened();
    for (const seq of [1, 2]) {
      link.send(eventFrame(seq, [wire.session]));
      expect(await link.next()).toEqual({ type: 'ack', seq });
    }
    const stream = await listening(wire);
    expect([await stream.message(), await stream.message()]).toEqual([changed(1), changed(2)]);
  });

  test('that is repeated is acknowledged and not delivered again', async () => {
    const link = await edge.dial();
    await link.hello(['notes']);
    const wire = await opened();
    const stream = await listening(wire);
    link.send(eventFrame(1, [wire.session]));
    expect(await link.next()).toEqual({ type: 'ack', seq: 1 });
    const again = await edge.dial();
    expect(await again.hello(['notes'])).toMatchObject({ type: 'welcome' });
    expect(await again.next()).toEqual({ type: 'ack', seq: 1 });
    again.send(eventFrame(1, [wire.session]));
    expect(await again.next()).toEqual({ type: 'ack', seq: 1 });
    again.send(eventFrame(2, [wire.session]));
    expect([await stream.message(), await stream.message()]).toEqual([changed(1), changed(2)]);
  });

  test('of a new epoch counts from the start', async () => {
    const link = await edge.dial();
    await link.hello(['notes'], 'epoch-0001');
    const wire = await opened();
    const stream = await listening(wire);
    link.send(eventFrame(1, [wire.session], changed(1)));
    // What is not acknowledged when its link is replaced is the agent's to repeat.
    expect(await link.next()).toEqual({ type: 'ack', seq: 1 });
    const restarted = await edge.dial();
    await restarted.hello(['notes'], 'epoch-0002');
    restarted.send(eventFrame(1, [wire.session], changed(99)));
    expect([await stream.message(), await stream.message()]).toEqual([changed(1), changed(99)]);
  });

  test("for another origin's session, or for a server of the edge, goes nowhere", async () => {
    const link = await edge.dial();
    await link.hello(['notes']);
    const time = await opened('time');
    const stream = await listening(time);
    link.send(eventFrame(1, [time.session, 'no such session']));
    expect(await link.next()).toEqual({ type: 'ack', seq: 1 });
    await time.request('DELETE');
    expect(await stream.message()).toBeNull();
  });
});

test('a second stream of a session takes the place of the first', async () => {
  const link = await edge.dial();
  await link.hello(['notes']);
  const wire = await opened();
  const first = await listening(wire);
  const second = await listening(wire);
  expect(await first.message()).toBeNull();
  link.send(eventFrame(1, [wire.session]));
  expect(await second.message()).toEqual(changed(1));
});

test('a client that leaves its stream loses nothing that comes later', async () => {
  const link = await edge.dial();
  await link.hello(['notes']);
  const wire = await opened();
  await (await listening(wire)).cancel();
  const stream = await listening(wire);
  link.send(eventFrame(1, [wire.session]));
  expect(await stream.message()).toEqual(changed(1));
});

describe.each([['stopped', undefined] as const, ['killed', 'SIGKILL'] as const])('an edge that is %s', (_, signal) => {
  test('keeps sessions, servers, messages that wait and the position of the link', async () => {
    const link = await edge.dial();
    await link.hello(['notes']);
    const [wire, time] = [await opened(), await opened('time')];
    link.send(eventFrame(1, [wire.session]));
    expect(await link.next()).toEqual({ type: 'ack', seq: 1 });
    await edge.restart(signal);
    expect(await wire.call('ping')).toMatchObject({ result: {} });
    expect(await time.call('ping')).toMatchObject({ result: {} });
    expect(await (await listening(wire)).message()).toEqual(changed(1));
    const again = await edge.dial();
    await again.hello(['notes']);
    expect(await again.next()).toEqual({ type: 'ack', seq: 1 });
  });
});
