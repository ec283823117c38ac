/**
 * A stdio server of 2026-07-28 that does what a test tells it to. Plain JavaScript without dependencies. It refuses what
 * earlier revisions had.
 */
import { createInterface } from 'node:readline';

const SUBSCRIPTION = 'io.modelcontextprotocol/subscriptionId';
const send = (message) => process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
const result = (id, value) => send({ id, result: { resultType: 'complete', ...value } });
const text = (id, value) => result(id, { content: [{ type: 'text', text: String(value) }] });
const listening = new Set();

const actions = {
  echo: (id, args) => text(id, args.value),
  pid: (id) => text(id, process.pid),
  never: () => undefined,
  crash: () => process.exit(3),
  /** Asks twice (`rounds`), each time with a state that only the exact echo satisfies. */
  ask: (id, _args, params) => {
    const round = params.requestState === undefined ? 0 : JSON.parse(params.requestState).round;
    if (round > 0 && params.inputResponses?.[`q${round}`] === undefined) return text(id, 'nothing answered');
    if (round === 2) return text(id, JSON.stringify(params.inputResponses));
    const inputRequests = {
      [`q${round + 1}`]: {
        method: 'elicitation/create',
        params: { mode: 'form', message: `round ${round + 1}`, requestedSchema: { type: 'object', properties: {} } },
      },
    };
    result(id, { resultType: 'input_required', inputRequests, requestState: `{ "round" :  ${round + 1} }` });
  },
  'ask-url': (id, _args, params) => {
    if (params.inputResponses) return text(id, JSON.stringify(params.inputResponses));
    const visit = {
      method: 'elicitation/create',
      params: { mode: 'url', message: 'visit', url: 'https://example.com/' },
    };
    result(id, { resultType: 'input_required', inputRequests: { visit } });
  },
  'ask-for-ever': (id) => result(id, { resultType: 'input_required', requestState: 'again' }),
  array: (id) => result(id, { content: [], structuredContent: [1, 2] }),
  changed: (id) => {
    for (const each of listening) {
      send({ method: 'notifications/tools/list_changed', params: { _meta: { [SUBSCRIPTION]: each.id } } });
      for (const uri of each.uris) {
        send({ method: 'notifications/resources/updated', params: { uri, _meta: { [SUBSCRIPTION]: each.id } } });
      }
    }
    text(id, 'said');
  },
  listening: (id) => text(id, JSON.stringify([...listening].map(({ uris }) => uris))),
  log: (id, _args, params) => {
    const level = params._meta['io.modelcontextprotocol/logLevel'];
    if (level) send({ method: 'notifications/message', params: { level, data: 'a log line' } });
    text(id, level ?? 'none');
  },
  'tear-down': (id) => {
    for (const each of listening) send({ method: 'notifications/cancelled', params: { requestId: each.id } });
    listening.clear();
    text(id, 'torn down');
  },
  misbehave: (id) => {
    send({ id: 'mine', method: 'sampling/createMessage', params: {} });
    send({ id: 99_999, result: {} });
    send({ method: 'notifications/tools/list_changed' });
    send({ method: 'notifications/tools/list_changed', params: { _meta: { [SUBSCRIPTION]: id } } });
    send({ method: 'notifications/message', params: { level: 'info', data: 'unasked' } });
    send({ method: 'notifications/progress', params: { progressToken: 'p', progress: 1 } });
    send({ method: 'notifications/cancelled', params: { requestId: id } });
    process.stdout.write('{"__proto__":{"polluted":1},"jsonrpc":"2.0","method":"x"}\n\u0000\n[[[[\n');
    text(id, 'behaved badly');
  },
};

const methods = {
  'server/discover': ({ id }) =>
    result(id, {
      supportedVersions: ['2026-07-28'],
      capabilities: { tools: { listChanged: true }, resources: { subscribe: true }, logging: {} },
      instructions: 'Do as told.',
      _meta: { 'io.modelcontextprotocol/serverInfo': { name: 'modern', version: '2' } },
      ttlMs: 0,
      cacheScope: 'private',
    }),
  'tools/list': ({ id }) =>
    result(id, {
      tools: [{ name: 'do', inputSchema: { type: 'object' }, outputSchema: { type: 'array' } }],
      ttlMs: 1,
      cacheScope: 'public',
    }),
  'tools/call': ({ id, params }) => {
    process.stderr.write(`called ${params.arguments.action}\n`);
    actions[params.arguments.action](id, params.arguments, params);
  },
  'subscriptions/listen': ({ id, params }) => {
    listening.add({ id, uris: params.notifications.resourceSubscriptions ?? [] });
    const { notifications } = params;
    send({
      method: 'notifications/subscriptions/acknowledged',
      params: { notifications, _meta: { [SUBSCRIPTION]: id } },
    });
  },
  'future/method': (message) => result(message.id, { resultType: 'com.example/other', unknown: 1, seen: message }),
};

createInterface({ input: process.stdin }).on('line', (line) => {
  const message = JSON.parse(line);
  if (message.id === undefined) {
    process.stderr.write(`notified ${message.method} ${JSON.stringify(message.params ?? {})}\n`);
    for (const each of listening) if (each.id === message.params?.requestId) listening.delete(each);
    return;
  }
  const method = methods[message.method];
  const envelope = message.params?._meta?.['io.modelcontextprotocol/protocolVersion'];
  if (!envelope) send({ id: message.id, error: { code: -32602, message: 'no envelope' } });
  else if (method) method(message);
  else send({ id: message.id, error: { code: -32601, message: 'no such method' } });
});
