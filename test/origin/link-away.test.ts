/** What the owner of an origin is told while its edge is away: something, and not the same thing again and again. */
import { generateKeyPair } from 'jose';
import { expect, test } from 'vitest';
import { Link } from '../../origin/link/link.ts';
import { freePort } from '../support/free-port.ts';

test('an edge that does not answer is told of once, by its address', async () => {
  const { privateKey } = await generateKeyPair('EdDSA');
  const [warned, tried]: [string[], string[]] = [[], []];
  const nothing = () => undefined;
  const log = {
    debug: (line: string) => void tried.push(line),
    info: nothing,
    warn: (line: string) => void warned.push(line),
    error: nothing,
    server: nothing,
    machine: nothing,
  };
  const host = `127.0.0.1:${await freePort()}`;
  const link = new Link({
    edgeUrl: `http://${host}`,
    headers: {},
    originId: 'office',
    key: () => Promise.resolve(privateKey),
    agentVersion: '1',
    servers: () => [],
    onWelcome: nothing,
    log,
  });
  await expect.poll(() => tried.length, { timeout: 50_000 }).toBeGreaterThanOrEqual(5);
  link.close();
  expect(warned).toEqual([expect.stringContaining(`the edge at ${host} does not answer (connect ECONNREFUSED`)]);
});
