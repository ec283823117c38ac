/**
 * A stdio MCP server that does what a test tells it to, also what no good server does. Plain JavaScript without
 * dependencies: it runs as a child process and inside a guest. One tool, `do`, whose `action` chooses.
 */
import { createHash, randomBytes } from 'node:crypto';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

const send = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const text = (id, value) => send({ id, result: { content: [{ type: 'text', text: String(value) }] } });
const NOTE = `${JSON.stringify({ jsonrpc: '2.0', method: 'notifications/tools/list_changed' })}\n`;
const asked = new Map();
let questions = 0;
const question = (method, params, then) => {
  const id = questions++;
  asked.set(id, then);
  send({ id, method, params });
};
let counter = 0;
const grown = [];

const actions = {
  echo: (id, args) => text(id, args.value),
  /** A variable of its environment: as it is, as base64 within more, or, to show that it is there, its digest. */
  variable: (id, { name, as }) => {
    const value = process.env[name] ?? '';
    if (as === 'digest') text(id, createHash('sha256').update(value).digest('hex'));
    else text(id, as === 'base64' ? Buffer.from(`user:${value}`).toString('base64') : value);
  },
  /** A variable to standard error and to standard output, each in two pieces. */
  leak: (id, { name }) => {
    const value = process.env[name] ?? '';
    for (const stream of [process.stderr, process.stdout]) stream.write(`token=${value.slice(0, 5)}`);
    setTimeout(() => {
      for (const stream of [process.stderr, process.stdout]) stream.write(`${value.slice(5)} end\n`);
      text(id, 'leaked');
    }, 30);
  },
  pid: (id) => text(id, process.pid),
  /** A number kept in memory: shows which sessions share a process. */
  count: (id) => text(id, ++counter),
  now: (id) => text(id, Date.now()),
  /** A fresh random number of the kernel. */
  random: (id) => text(id, readFileSync('/proc/sys/kernel/random/uuid', 'utf8')),
  /** Random numbers of the process's own generator. */
  draw: (id) => text(id, randomBytes(16).toString('hex')),
  read: (id, args) => text(id, readFileSync(args.path, 'utf8').trim()),
  /** Never answers, and says that it was asked. */
  never: () => process.stderr.write('never answers\n'),
  later: (id, args) => setTimeout(() => text(id, args.value), args.ms),
  /** Leaves a line on disk for each execution, with the process that did it, then takes its time. */
  record: (id, args) => {
    appendFileSync('executions.log', `${args.value} ${process.pid}\n`);
    setTimeout(() => text(id, args.value), args.ms ?? 0);
  },
  crash: (_id, args) => {
    process.stderr.write('last words\nand no newline');
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
  /** Progress in time: one step every `ms`, then the answer, or not before the file `until` is there. */
  step: (id, args, meta) => {
    let n = 0;
    const timer = setInterval(() => {
      send({ method: 'notifications/progress', params: { progressToken: meta?.progressToken, progress: ++n } });
      if (n < args.steps || (args.until && !existsSync(args.until))) return;
      clearInterval(timer);
      text(id, 'done');
    }, args.ms);
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
  /** Asks as often as told, one question after the other or all at once. */
  'ask-many': (id, args) => {
    const answers = [];
    const put = (n) =>
      question('elicitation/create', { message: `question ${n}`, requestedSchema: {} }, (answer) => {
        answers.push(answer.result ?? answer.error);
        if (answers.length === args.times) text(id, JSON.stringify(answers));
        else if (!args.atOnce) put(n + 1);
      });
    for (let n = 1; n <= (args.atOnce ? args.times : 1); n++) put(n);
  },
  'ask-method': (id, args) =>
    question(args.method, args.params, (answer) => {
      if (answer.error && args.insists) send({ id, result: { content: [], isError: true } });
      else text(id, JSON.stringify(answer.result ?? answer.error));
    }),
  /** Asks, and answers the call without waiting. */
  'ask-and-go': (id) => {
    question('roots/list', {}, () => undefined);
    setTimeout(() => text(id, 'did not wait'), 100);
  },
  /** Writes as much as told without a line's end, or in lines, or in notifications, and then answers. */
  flood: async (id, args) => {
    const block = { endless: 'x'.repeat(1 << 20), lines: 'not JSON\n'.repeat(1 << 17), notes: NOTE.repeat(1 << 13) }[
      args.of
    ];
    for (let left = args.bytes; left > 0; left -= block.length) {
      if (!process.stdout.write(block)) await new Promise((resolve) => process.stdout.once('drain', resolve));
    }
    process.stdout.write('\n');
    text(id, 'flooded');
  },
  /** Writes these bytes as they are, with `ID` replaced by the call's id. */
  raw: (_id, args) => {
    const bytes = Buffer.from(args.base64, 'base64').toString('latin1').replaceAll('ID', String(_id));
    process.stdout.write(Buffer.from(`${bytes}\n`, 'latin1'));
  },
  deep: (id, args) => {
    process.stdout.write(
      `{"jsonrpc":"2.0","id":${id},"result":${'{"a":'.repeat(args.levels)}1${'}'.repeat(args.levels)}}\n`,
    );
  },
  error: (id, args) => send({ id, error: args.error }),
  'log-at': (id, args) => {
    for (const level of args.levels) send({ method: 'notifications/message', params: { level, data: level } });
    text(id, 'logged');
  },
  updated: (id, args) => {
    send({ method: 'notifications/resources/updated', params: { uri: args.uri } });
    text(id, 'said');
  },
  changed: (id) => {
    send({ method: 'notifications/tools/list_changed' });
    text(id, 'said');
  },
  /** `line` to standard error; with `times` that often, each time with its number. */
  stderr: (id, { line = 'a line on stderr', times }) => {
    const lines = times === undefined ? [line] : Array.from({ length: times }, (_, n) => `${n + 1} ${line}`);
    process.stderr.write(`${lines.join('\n')}\n`, () => text(id, 'written'));
  },
  /** Has one tool more, and says so. */
  grow: (id, args) => {
    grown.push({ name: args.name, inputSchema: { type: 'object' } });
    send({ method: 'notifications/tools/list_changed' });
    text(id, 'grown');
  },
};

const methods = {
  initialize: ({ id, params }) => {
    process.stderr.write(`capabilities ${JSON.stringify(params.capabilities)}\n`);
    send({
      id,
      result: {
        protocolVersion: params.protocolVersion,
        capabilities: { tools: { listChanged: true }, logging: {}, resources: { subscribe: true }, tasks: {} },
        serverInfo: { name: 'scripted', version: '1' },
      },
    });
  },
  'logging/setLevel': ({ id, params }) => {
    process.stderr.write(`level ${params.level}\n`);
    send({ id, result: {} });
  },
  'resources/subscribe': ({ id, params }) => {
    process.stderr.write(`subscribed ${params.uri}\n`);
    if (params.uri.startsWith('test:')) send({ id, result: {} });
    else send({ id, error: { code: -32002, message: 'no such resource' } });
  },
  'resources/unsubscribe': ({ id, params }) => {
    process.stderr.write(`unsubscribed ${params.uri}\n`);
    send({ id, result: {} });
  },
  'com.example/future': ({ id, params }) => send({ id, result: { seen: params } }),
  ping: ({ id }) => send({ id, result: {} }),
  'tools/list': ({ id }) => {
    const tools = [{ name: 'do', inputSchema: { type: 'object' } }, ...grown];
    // The same tool under names that promise something.
    if (process.argv.includes('--hints')) {
      tools.push({ ...tools[0], name: 'look', annotations: { readOnlyHint: true } });
      tools.push({ ...tools[0], name: 'again', annotations: { idempotentHint: true } });
    }
    send({ id, result: { tools } });
  },
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
    if (message.method === 'notifications/initialized' && process.argv.includes('--asks-at-once')) {
      question('roots/list', {}, (answer) => process.stderr.write(`roots ${JSON.stringify(answer.result)}\n`));
    }
    return;
  }
  if (message.method === 'server/discover') {
    process.stderr.write('probed\n');
    // What servers of earlier revisions did when a message came before `initialize`.
    if (process.argv.includes('--dies-of-probe')) process.exit(9);
    if (process.argv.includes('--ignores-probe')) return;
  }
  const method = methods[message.method];
  if (method) method(message);
  else send({ id: message.id, error: { code: -32601, message: 'no such method' } });
});
