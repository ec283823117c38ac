/**
 * A second machine becomes an origin of an edge: invited, joined, served, its keys changed under way, revoked. Two routers'
 * worth of real parts: workerd, two agents, an SDK client; the "tunnel" is loopback HTTP.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AdminClient, adminOf } from '../../cli/admin.ts';
import { enrol, loadEnrolled, rotate, settled } from '../../router/enrolled.ts';
import { createRouter, type Router } from '../../router/router.ts';
import { type RunningOrigin, runOrigin } from '../../router/run-origin.ts';
import { makeKey, rotateEdgeKey, writeAtomically } from '../../router/state.ts';
import { parseConfigObject } from '../../shared/config.ts';
import { formatCode, parseCode } from '../../shared/enrolment.ts';
import { EventReader } from '../edge/edge-under-test.ts';
import { postModern } from '../edge/modern-client.ts';
import { freePort } from '../support/free-port.ts';
import { connect } from '../support/moorage.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const dir = mkdtempSync(join(tmpdir(), 'moorage-enrol-'));
const [edgeState, officeState] = [join(dir, 'edge'), join(dir, 'office')];
const server = {
  runtime: 'process',
  command: process.execPath,
  args: [join(ROOT, 'test/support/scripted-server.mjs')],
} as const;
let router: Router;
let admin: AdminClient;
let office: RunningOrigin;
let address: string;
const said: string[] = [];

const startEdgeSide = async (port: number) => {
  router = await createRouter({ mcpServers: { here: server } }, { stateDir: edgeState, configDir: ROOT, port });
  admin = await adminOf({ config: 'unused', state: edgeState });
};
const startOffice = async () => {
  const config = parseConfigObject({ mcpServers: { there: server }, origin: { listen: address } });
  office = await runOrigin(config, { configDir: ROOT, stateDir: officeState, log: (line) => said.push(line) });
};
const invite = async (id = 'office') =>
  (await admin.post('/origins/invitations', { id, url: `http://${address}` })) as { code: string };
const origins = async () =>
  ((await admin.get('/origins')) as { origins: { id: string; connected: boolean; servers: string[] }[] }).origins;
const answers = async () => {
  const { client, close } = await connect(router.url, 'there');
  try {
    await client.ping();
    return (await client.listTools()).tools.length > 0;
  } finally {
    await close();
  }
};

/** A call at `there` that runs until it is let go: its server asks its client something. */
async function runningCall() {
  const { client, text, close } = await connect(router.url, 'there', { sampling: {} });
  const [asked, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  client.setRequestHandler('sampling/createMessage', async () => {
    asked.resolve();
    await released.promise;
    return { role: 'assistant', content: { type: 'text', text: 'an answer' }, model: 'm' };
  });
  const answer = text('do', { action: 'ask' });
  answer.catch(() => undefined);
  await asked.promise;
  return { answer, letGo: () => released.resolve(), text, close };
}

beforeAll(async () => {
  address = `127.0.0.1:${await freePort()}`;
  await startEdgeSide(0);
}, 60_000);
afterAll(async () => {
  await office?.close();
  await router?.close();
  rmSync(dir, { recursive: true, force: true });
});

describe('joining', () => {
  test('a code that was never made is refused, and one of another edge pins nothing', async () => {
    const { code } = await invite();
    const parts = parseCode(code);
    if (!parts) throw new Error('no code');
    const edge = new URL(router.url);
    const foreign = formatCode({ ...parts, secret: 'A'.repeat(22) });
    await expect(enrol(officeState, edge, foreign)).rejects.toMatchObject({ code: 'grant_invalid' });
    await expect(enrol(officeState, edge, 'nonsense')).rejects.toMatchObject({ code: 'bad_code' });
    const other = formatCode({ ...parts, fingerprint: 'A'.repeat(22) });
    await expect(enrol(officeState, edge, other)).rejects.toMatchObject({ code: 'bad_code' });
    expect(() => loadEnrolled(officeState)).toThrow('belongs to no edge');
  });

  test('keys are exchanged once, and the servers of the new origin are served', async () => {
    const { code } = await invite();
    const { id } = await enrol(officeState, new URL(router.url), code);
    expect(id).toBe('office');
    await expect(enrol(join(dir, 'thief'), new URL(router.url), code)).rejects.toMatchObject({ code: 'grant_invalid' });
    await startOffice();
    await expect(answers()).resolves.toBe(true);
    expect(await origins()).toMatchObject([
      { id: 'local', servers: ['here'] },
      { id: 'office', connected: true, servers: ['there'] },
    ]);
  });

  test('where it is reached is the word of its inviter, and must be an address of its own', async () => {
    const refused = (url: string) =>
      expect(admin.post('/origins/invitations', { id: 'x', url })).rejects.toMatchObject({ code: 'invalid_request' });
    for (const url of ['http://192.168.1.1', 'ftp://a.example', 'https://u:p@a.example', 'https://a.example/x', 'a'])
      await refused(url);
    await expect(admin.post('/origins/invitations', { id: 'local', url: 'https://a.example' })).rejects.toThrow(
      'by its own configuration',
    );
  });
});

describe('keys', () => {
  test("an origin's key changes under an open link and a running call; the old one is worth nothing", async () => {
    const before = loadEnrolled(officeState);
    const running = await runningCall();
    await rotate(officeState);
    running.letGo();
    expect(await running.answer).toContain('an answer');
    await running.close();
    const after = loadEnrolled(officeState);
    expect(after.key.x).not.toBe(before.key.x);
    await expect(answers()).resolves.toBe(true);
    const stolen = join(dir, 'stolen');
    enrolledAs(stolen, before);
    await expect(rotate(stolen)).rejects.toMatchObject({ code: 'grant_invalid' });
  });

  test('a change that was cut off before or after the edge took it is ended', async () => {
    const { key, ...rest } = loadEnrolled(officeState);
    const cut = join(dir, 'cut');
    // The edge has never heard of the next key.
    enrolledAs(cut, { ...rest, key, nextKey: await makeKey() });
    expect((await settled(cut)).key.x).toBe(key.x);
    // It has it, and the file was not written any more.
    enrolledAs(cut, { ...rest, key: await makeKey(), nextKey: key });
    const { key: kept, nextKey } = await settled(cut);
    expect([kept.x, nextKey]).toEqual([key.x, undefined]);
  });

  test('the edge changes its key without losing an origin', async () => {
    const port = Number(new URL(router.url).port);
    const pinned = () => loadEnrolled(officeState).edgeKeys.map(({ x }) => x);
    const [old] = pinned();
    for (const step of ['prepare', 'finish'] as const) {
      // Its stream is cut with the edge, and taken up again at the next one.
      const running = await runningCall();
      await router.close();
      await rotateEdgeKey(edgeState, step);
      await startEdgeSide(port);
      running.letGo();
      expect(await running.answer).toContain('an answer');
      await running.close();
      await expect.poll(() => pinned().length, { timeout: 40_000 }).toBe(step === 'prepare' ? 2 : 1);
      await expect(answers()).resolves.toBe(true);
    }
    expect(pinned()).not.toContain(old);
  }, 120_000);
});

test('a revoked origin has no servers, no link, nobody listens to it any more, and it cannot come back', async () => {
  const running = await runningCall();
  const notifications = { toolsListChanged: true };
  const listening = new EventReader(
    await postModern(`${router.url}/there/mcp`, 'subscriptions/listen', { notifications }),
  );
  expect(await listening.message()).toMatchObject({ method: 'notifications/subscriptions/acknowledged' });
  const heard = said.length;
  await admin.delete('/origins/office');
  // What runs is ended once every isolate knows: its bound is a matter of test/edge/recent.test.ts.
  await expect(running.answer).rejects.toThrow('may or may not have taken effect');
  expect(await listening.message()).toMatchObject({ error: { data: { code: 'origin_away' } } });
  expect(await listening.message()).toBeNull();
  await expect(running.text('do', { action: 'count' })).rejects.toThrow('not known to this edge any more');
  await running.close();
  await expect.poll(() => said.slice(heard).join(), { timeout: 40_000 }).toContain('refused this origin (HTTP 401)');
  await expect(connect(router.url, 'there')).rejects.toThrow('There is no server');
  expect((await origins()).map(({ id }) => id)).toEqual(['local']);
  await expect(rotate(officeState)).rejects.toMatchObject({ code: 'grant_invalid' });
  await expect(admin.delete('/origins/office')).rejects.toMatchObject({ code: 'not_found' });
});

function enrolledAs(stateDir: string, enrolled: object): void {
  mkdirSync(stateDir, { recursive: true });
  writeAtomically(join(stateDir, 'origin.json'), enrolled);
}
