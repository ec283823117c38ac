/**
 * A stdio MCP server that does what a test tells it to, also what no good server does. Plain JavaScript without
 * dependencies: it runs as a child process and inside a guest. One tool, `do`, whose `action` chooses.
 */
import { createInterface } from 'node:readline';

const send = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const text = (id, value) => send({ id, result: { content: [{ type: 'text', text: String(value) }] } });
const asked = new Map();
let questions = 0;
let counter = 0;

const actions = {
  echo: (id, args) => text(id, args.value),
  pid: (id) => text(id, process.pid),
  /** A number kept in memory: shows which sessions share a process. */
  count: (id) => text(id, ++counter),
  never: () => undefined,
  later: (id, args) => setTimeout(() => text(id, args.value), args.ms),
  crash: (_id, args) => {
    process.stderr.write('last words\n');
    setTimeout(() => process.exit(args.code ?? 3), 20);
  },
  'answer-and-exit': (id) => {
    process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, result: { content: [] } })}\n`, () => process.exit(0));
  },
  garbage: (id) => {
    process.stdout.write('this is no JSON\n{"jsonrpc":"2.0"}\n[]\n');
    text(id, 'after garbage');
  },
  huge: (id, args) => text(id, 'x'.repeat(args.bytes)),
  progress: (id, args, meta) => {
    for (let n = 1; n <= args.steps; n++) {
      send({ method: 'notifications/progress', params: { progressToken: meta?.progressToken, progress: n } });
    }
    text(id, 'done');
  },
  log: (id) => {
    send({ method: 'notifications/message', params: { level: 'info', data: 'a log line' } });
    text(id, 'logged');
  },
  ask: (id) => {
    const question = questions++;
    asked.set(question, (answer) => text(id, JSON.stringify(answer.result ?? answer.error)));
    send({ id: question, method: 'sampling/createMessage', params: { messages: [], maxTokens: 1 } });
  },
  changed: (id) => {
    send({ method: 'notifications/tools/list_changed' });
    text(id, 'said');
  },
  stderr: (id) => {
    process.stderr.write('a line on stderr\n');
    text(id, 'written');
  },
};

const methods = {
  initialize: ({ id, params }) => {
    process.stderr.write(`capabilities ${JSON.stringify(params.capabilities)}\n`);
    send({
      id,
      result: {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: { listChanged: true }, logging: {} },
        serverInfo: { name: 'scripted', version: '1' },
      },
    });
  },
  ping: ({ id }) => send({ id, result: {} }),
  'tools/list': ({ id }) => send({ id, result: { tools: [{ name: 'do', inputSchema: { type: 'object' } }] } }),
  'tools/call': ({ id, params }) => actions[params.arguments.action](id, params.arguments, params._meta),
};

if (process.argv.includes('--exit-at-once')) {
  process.stderr.write('cannot start\n');
  process.exit(7);
}
createInterface({ input: process.stdin }).on('line', (line) => {
  const message = JSON.parse(line);
  if (message.method === undefined) {
    asked.get(message.id)?.(message);
    asked.delete(message.id);
    return;
  }
  if (message.id === undefined) {
    process.stderr.write(`notified ${message.method} ${JSON.stringify(message.params ?? {})}\n`);
    return;
  }
  const method = methods[message.method];
  if (method) method(message);
  else send({ id: message.id, error: { code: -32601, message: 'no such method' } });
});
