/**
 * A stdio server of either era (`--modern`, else 2025-11-25) that keeps every line it got as it came and says what a test
 * tells it to, byte for byte. Plain JavaScript without dependencies.
 *
 * One tool, `do`. `say` is a list of lines that are written in turn: `$ID` and `$TOKEN` stand for the call's id and progress
 * token, `$LISTEN` for the id of the same client's newest subscription, or of the router's where the client has none here, `$HEARD` for the line last waited for, as a JSON string.
 * An entry `{ "await": text }` waits for a line with this text, from the beginning of the process. `{ "repeat": n, "line": … }` writes
 * a line n times, with `$N` counting from 1. Every other request is answered with `seen`: itself, as it came.
 */
const modern = process.argv.includes('--modern');
const CAPABILITIES = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  logging: {},
  completions: {},
  tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } },
  extensions: { 'com.example/extension': { deep: [1] } },
  'com.example/future': { since: 2030 },
};
/** Members of a result that nobody knows yet. */
const FUTURE = { 'com.example/more': { z: [] } };

const received = [];
const waiting = new Set();
const listening = new Map();
const CLIENT = 'io.modelcontextprotocol/clientInfo';

const write = (line) =>
  new Promise((resolve) => {
    if (process.stdout.write(`${line}\n`)) resolve();
    else process.stdout.once('drain', resolve);
  });
const answer = (id, result) =>
  write(JSON.stringify({ jsonrpc: '2.0', id, result: modern ? { resultType: 'complete', ...result } : result }));
const arrival = (text) => {
  const found = received.find((line) => line.includes(text));
  if (found !== undefined) return found;
  return new Promise((resolve) => waiting.add({ text, resolve }));
};

async function say(id, params) {
  let heard = null;
  const fill = (line, n) =>
    line
      .replaceAll('$ID', () => JSON.stringify(id))
      .replaceAll('$TOKEN', () => JSON.stringify(params._meta?.progressToken))
      .replaceAll('$LISTEN', () =>
        JSON.stringify(listening.get(params._meta?.[CLIENT]?.name) ?? listening.get('moorage')),
      )
      .replaceAll('$HEARD', () => JSON.stringify(heard))
      .replaceAll('$N', () => String(n));
  for (const step of params.arguments.say) {
    if (typeof step === 'string') await write(fill(step, 0));
    else if (step.await !== undefined) heard = await arrival(step.await);
    else for (let n = 1; n <= step.repeat; n++) await write(fill(step.line, n));
  }
}

const TOOLS = [{ name: 'do', inputSchema: { type: 'object' }, 'com.example/future': true }];
const methods = {
  initialize: ({ id, params }) =>
    answer(id, {
      protocolVersion: params.protocolVersion,
      capabilities: CAPABILITIES,
      serverInfo: { name: 'crossing', version: '1', 'com.example/future': 1 },
      ...FUTURE,
    }),
  'server/discover': ({ id }) =>
    answer(id, {
      supportedVersions: ['2026-07-28'],
      capabilities: CAPABILITIES,
      ttlMs: 0,
      cacheScope: 'private',
      ...FUTURE,
      _meta: { 'io.modelcontextprotocol/serverInfo': { name: 'crossing', version: '1' }, 'com.example/trace': 7 },
    }),
  'tools/list': ({ id }) => answer(id, { tools: TOOLS, ...(modern && { ttlMs: 0, cacheScope: 'private' }) }),
  'tools/call': ({ id, params }, line) =>
    Array.isArray(params.arguments?.say) && params.inputResponses === undefined
      ? say(id, params)
      : answer(id, { content: [], seen: line }),
  'subscriptions/listen': ({ id, params }) => {
    listening.set(params._meta[CLIENT].name, id);
    const meta = { 'io.modelcontextprotocol/subscriptionId': id };
    const acknowledged = { notifications: params.notifications, _meta: meta };
    write(
      JSON.stringify({
        jsonrpc: '2.0',
        method: 'notifications/subscriptions/acknowledged',
        params: acknowledged,
      }),
    );
  },
};
const absent = modern ? ['initialize'] : ['server/discover'];

const take = (line) => {
  received.push(line);
  for (const each of waiting) {
    if (!line.includes(each.text)) continue;
    waiting.delete(each);
    each.resolve(line);
  }
  const message = JSON.parse(line);
  if (message.method === undefined || message.id === undefined) return;
  if (absent.includes(message.method)) {
    write(JSON.stringify({ jsonrpc: '2.0', id: message.id, error: { code: -32601, message: 'no such method' } }));
  } else (methods[message.method] ?? (({ id }) => answer(id, { seen: line })))(message, line);
};

// Lines end at a line feed alone: `node:readline` would cut at U+2028, which JSON text may hold.
let parts = [];
process.stdin.setEncoding('utf8').on('data', (chunk) => {
  const [first, ...more] = chunk.split('\n');
  parts.push(first);
  for (const next of more) {
    take(parts.join(''));
    parts = [next];
  }
});
process.stdin.on('end', () => process.exit(0));
