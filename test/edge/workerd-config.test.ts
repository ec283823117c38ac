import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { edgeServersModule } from '../../edge/local/edge-servers-module.ts';
import { COMPATIBILITY_DATE, COMPATIBILITY_FLAGS, workerdConfig } from '../../edge/local/workerd-config.ts';

const options = {
  host: '127.0.0.1',
  port: 0,
  worker: 'worker.js',
  aggregate: { servers: ['*'], tools: ['*'] },
  storage: '/state/"quoted"/storage',
  origins: [{ id: 'my-host', key: { kty: 'OKP', x: 'public' }, address: 'unix:/run/origin.sock' }],
};

test('text in the configuration is escaped', () => {
  expect(workerdConfig(options)).toContain('path = "/state/\\"quoted\\"/storage"');
});

test('an IPv6 address is bracketed', () => {
  expect(workerdConfig({ ...options, host: '::1', port: 8787 })).toContain('address = "[::1]:8787"');
});

test('each origin has a service, a binding and a public key', () => {
  const text = workerdConfig(options);
  expect(text).toContain('(name = "origin-my-host", external = (address = "unix:/run/origin.sock", http = ()))');
  expect(text).toContain('(name = "ORIGIN_MY_HOST", service = "origin-my-host")');
  expect(text).toContain('\\"service\\":\\"ORIGIN_MY_HOST\\"');
});

test('streams are ended early only when it is asked for', () => {
  expect(workerdConfig(options)).not.toContain('MOORAGE_END_IDLE_AFTER_MS');
  const text = workerdConfig({ ...options, endIdleAfterMs: 100 });
  expect(text).toContain('(name = "MOORAGE_END_IDLE_AFTER_MS", text = "100")');
});

test('secrets come from the environment', () => {
  expect(workerdConfig(options)).toContain('(name = "MOORAGE_EDGE_KEY", fromEnvironment = "MOORAGE_EDGE_KEY")');
});

test('wrangler runs the Worker as workerd does', () => {
  const wrangler = readFileSync(new URL('../../wrangler.toml', import.meta.url), 'utf8');
  expect(wrangler).toContain(`compatibility_date = "${COMPATIBILITY_DATE}"`);
  expect(wrangler).toContain(
    `compatibility_flags = [${COMPATIBILITY_FLAGS.map((flag) => JSON.stringify(flag)).join(', ')}]`,
  );
});

test('edge servers are named whatever they are called', async () => {
  const source = edgeServersModule({
    time: 'data:text/javascript,export default 1',
    __proto__x: 'data:text/javascript,export default 2',
  });
  const module = (await import(`data:text/javascript,${encodeURIComponent(source)}`)) as { edgeServers: unknown };
  expect(module.edgeServers).toEqual({ time: 1, __proto__x: 2 });
});
