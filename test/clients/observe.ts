/**
 * `node test/clients/observe.ts --url URL [--client NAME] [--tool echo --args '{"message":"hi"}']` prints the HTTP
 * conversation each client holds with a server: what it sends first, with which headers, and who ends each stream.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Exchange } from '../conformance/proxy.ts';
import { startProxy } from '../conformance/proxy.ts';
import { contenders } from './contenders.ts';

const { values } = parseArgs({
  options: {
    url: { type: 'string', default: 'http://localhost:3000/mcp' },
    client: { type: 'string' },
    tool: { type: 'string', default: 'echo' },
    args: { type: 'string', default: '{"message":"ahoy"}' },
  },
});

/** Left out: what every HTTP client sends and nobody routes on. */
const dull = /^(connection|host|content-length|transfer-encoding|date|keep-alive|accept-encoding|sec-fetch-.*)$/;

for (const { name, run, endpoint } of contenders) {
  if (values.client && !name.toLowerCase().includes(values.client.toLowerCase())) continue;
  const proxy = await startProxy(values.url.replace(/\/mcp$/, `/${endpoint}`));
  const call = { tool: values.tool, args: JSON.parse(values.args) };
  const outcome = await run(proxy.url, call).then(
    ({ tools = [], text = '' }) => `${tools.length} tools, ${JSON.stringify(text.slice(0, 100))}`,
    (error: unknown) => `failed: ${error}`,
  );
  await sleep(200);
  console.log(`\n## ${name}: ${outcome}\n`);
  for (const exchange of proxy.exchanges) console.log(`${describe(exchange)}\n`);
  await proxy.close();
}

function describe(exchange: Exchange): string {
  const { at, method, path, requestHeaders, requestBody, status, responseHeaders, responseBody } = exchange;
  const ended =
    exchange.endedAt === undefined ? 'still open' : `${exchange.endedBy} ended it at ${exchange.endedAt} ms`;
  return [
    `${at} ms ${method} ${path} -> ${status} (${ended})`,
    `  > ${headersOf(requestHeaders)}`,
    ...(requestBody ? [`  > ${shorten(requestBody)}`] : []),
    `  < ${headersOf(responseHeaders)}`,
    ...(responseBody ? [`  < ${shorten(responseBody)}`] : []),
  ].join('\n');
}

function headersOf(headers: Exchange['requestHeaders']): string {
  const told = Object.entries(headers).filter(([name]) => !dull.test(name));
  return told.map(([name, value]) => `${name}: ${value}`).join('; ');
}

function shorten(body: string): string {
  const line = body.replaceAll('\n', '\\n');
  return line.length > 600 ? `${line.slice(0, 600)}…` : line;
}
