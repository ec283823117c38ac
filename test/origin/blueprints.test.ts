/** What is built for machines before they are called. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { Blueprints } from '../../origin/blueprints.ts';
import { machineDefinitions, serverDefinitions } from '../../origin/server.ts';
import { parseConfig } from '../../shared/config.ts';

test('a machine whose image cannot be built is named, and stops no other from being built', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'moorage-blueprints-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const config = parseConfig(
    JSON.stringify({ mcpServers: { one: { command: 'perl', args: ['one.pl'] }, two: { command: 'ruby' } } }),
  );
  const definitions = new Map(machineDefinitions(serverDefinitions(config)).map((one) => [one.key, one]));
  const errors: string[] = [];
  const quiet = () => undefined;
  const log = { debug: quiet, info: quiet, warn: quiet, server: quiet, machine: quiet };
  const blueprints = new Blueprints({
    definitions,
    hasDriver: true,
    folder,
    stateDir: folder,
    cacheDir: join(folder, 'cache'),
    configDir: folder,
    log: { ...log, error: (text) => void errors.push(text) },
  });
  await blueprints.prepare();
  expect(errors).toEqual([
    expect.stringMatching(/^machine one: .*perl/),
    expect.stringMatching(/^machine two: .*ruby/),
  ]);
});
