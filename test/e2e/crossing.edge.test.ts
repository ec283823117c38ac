/**
 * Everything crosses: what a client says reaches the server's process, and what that says reaches the client, through
 * edge and agent, for both eras on either side and at `/mcp`. Both ends see text, so a member that was dropped, renamed
 * or rounded on the way shows.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type CrossingClient, type Era, legacyClient, modernClient, type Sent } from '../support/crossing-client.ts';
import { moorageUp, project, type Running } from '../support/moorage.ts';

const SERVER = new URL('../support/crossing-server.mjs', import.meta.url).pathname;

let moorage: Running;
const open: CrossingClient[] = [];
beforeAll(async () => {
  const stdio = (...args: string[]) => ({ runtime: 'process', command: 'node', args: [SERVER, ...args] });
  moorage = await moorageUp(project({ mcpServers: { legacy: stdio(), modern: stdio('--modern') } }).dir);
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((client) => client.close()));
});
afterAll(() => moorage.stop());

/** A way through the router: who asks, who answers, and what the tool and its resources are called there. */
interface Route {
  readonly client: Era;
  readonly server: Era;
  readonly path: string;
  readonly tool: string;
  readonly scheme: string;
}
const route = (client: Era, server: Era): Route => ({ client, server, path: server, tool: 'do', scheme: '' });
const at = (era: Era): Route => ({ client: era, server: era, path: '', tool: `${era}__do`, scheme: `${era}+` });
const LEGACY = route('legacy', 'legacy');
const MODERN = route('modern', 'modern');
const BRIDGED = [route('modern', 'legacy'), route('legacy', 'modern')];
const ROUTES = [LEGACY, MODERN, ...BRIDGED, at('legacy'), at('modern')];
const nameOf = ({ client, server, path }: Route) =>
  `${client} client, ${server} server${path === '' ? ', at /mcp' : ''}`;
const table = (routes: readonly Route[]) => routes.map((each) => [nameOf(each), each] as const);

const CAPABILITIES =
  '{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true},"com.example/future":{"since":2030},"extensions":{"com.example/extension":{"deep":[1]}}}';

async function connect({ client: era, path }: Route, capabilities = CAPABILITIES): Promise<CrossingClient> {
  const url = `${moorage.url}${path === '' ? '' : `/${path}`}/mcp`;
  const client = era === 'legacy' ? await legacyClient(url, capabilities) : modernClient(url, capabilities);
  open.push(client);
  return client;
}

type Step = string | { readonly await: string } | { readonly repeat: number; readonly line: string };

/** A call of the tool that makes the server say these lines. */
const calling = ({ tool }: Route, say: readonly Step[], more: Partial<Sent> = {}): Sent => ({
  method: 'tools/call',
  params: `"name":"${tool}","arguments":{"say":${JSON.stringify(say)}}`,
  name: tool,
  ...more,
});
/** A call of the tool that is answered with itself, as it came there, in `seen`. */
const echoing = ({ tool }: Route, args: string, more: Partial<Sent> = {}): Sent => ({
  method: 'tools/call',
  params: `"name":"${tool}","arguments":{${args}}`,
  name: tool,
  ...more,
});
/** The answer to a call, with these members (JSON text) in its result. */
const done = ({ server }: Route, members = '') =>
  `{"jsonrpc":"2.0","id":$ID,"result":{${server === 'modern' ? '"resultType":"complete",' : ''}"content":[]${members && `,${members}`}}}`;
const note = (method: string, params: string) => `{"jsonrpc":"2.0","method":"${method}","params":{${params}}}`;
/** A notification of the kind that belongs to a subscription. */
const announced = ({ server }: Route, method: string, params = '') =>
  note(
    method,
    server === 'legacy'
      ? params
      : `${params && `${params},`}"_meta":{"io.modelcontextprotocol/subscriptionId":$LISTEN}`,
  );

interface Answer {
  readonly id: unknown;
  readonly result: { readonly seen: string; readonly heard: string; readonly resultType?: string };
}
const parsed = (text: string) => JSON.parse(text) as Answer;
/** What the server saw of a request that is answered with itself. */
const seenOf = (answer: string) => parsed(answer).result?.seen ?? expect.fail(answer);
const send = async (client: CrossingClient, sent: Sent) => await (await client.send(sent)).answer();
const heardBy = async (client: CrossingClient, way: Route, text: string) =>
  parsed(await send(client, calling(way, [{ await: text }, done(way, '"heard":$HEARD')]))).result.heard;

describe('on the stream of a call', () => {
  test.each(
    ROUTES.flatMap((way) =>
      [
        ['"a token"', 300],
        ['0', 3],
        ['""', 3],
        ['"ü\\"\\\\"', 3],
        ['-7', 3],
        ['9007199254740993', 3],
      ].map(([token, steps]) => [nameOf(way), token as string, steps as number, way] as const),
    ),
  )('progress, %s, token %s, %i steps', async (_, token, steps, way) => {
    const client = await connect(way);
    const line = note(
      'notifications/progress',
      '"progressToken":$TOKEN,"progress":$N,"total":0.1,"message":"€","com.example/more":[$N],"_meta":{"traceparent":"00-$N"}',
    );
    const heard = await client.send(
      calling(way, [{ repeat: steps, line }, done(way)], { meta: `"progressToken":${token}` }),
    );
    const messages = await heard.all();
    expect(messages.slice(0, -1)).toEqual(
      Array.from({ length: steps }, (_each, n) => line.replace('$TOKEN', token).replaceAll('$N', String(n + 1))),
    );
  });

  test.each(table(ROUTES))('as much progress as a server likes arrives in order, none twice: %s', async (_, way) => {
    const client = await connect(way);
    const line = note('notifications/progress', '"progressToken":$TOKEN,"progress":$N');
    const heard = await client.send(
      calling(way, [{ repeat: 10_000, line }, done(way)], { meta: '"progressToken":"t"' }),
    );
    const steps = (await heard.all()).flatMap((text) => /"progress":(\d+)/.exec(text)?.[1] ?? []).map(Number);
    expect(steps.every((step, n) => n === 0 || step > (steps[n - 1] ?? 0))).toBe(true);
    expect(steps.at(-1)).toBe(10_000);
    expect(steps.length).toBeGreaterThanOrEqual(1_000);
  });

  test.each(table(ROUTES))('log lines, with their levels: %s', async (_, way) => {
    const client = await connect(way);
    const levels = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency'];
    const line = (level: string) =>
      note(
        'notifications/message',
        `"level":"${level}","logger":"l","data":{"a":[1,null]},"com.example/more":true,"_meta":{"tracestate":"x=y"}`,
      );
    if (way.client === 'legacy') await send(client, { method: 'logging/setLevel', params: '"level":"debug"' });
    const meta = way.client === 'modern' ? '"io.modelcontextprotocol/logLevel":"debug"' : '';
    const heard = await client.send(calling(way, [...levels.map(line), done(way)], { meta }));
    expect((await heard.all()).slice(0, -1)).toEqual(levels.map(line));
  });

  test('a modern client hears of a server with sessions only what is as severe as it asked for', async () => {
    const way = route('modern', 'legacy');
    const client = await connect(way);
    const line = (level: string) => note('notifications/message', `"level":"${level}","data":1`);
    const heard = await client.send(
      calling(way, [line('info'), line('error'), done(way)], { meta: '"io.modelcontextprotocol/logLevel":"warning"' }),
    );
    expect((await heard.all()).slice(0, -1)).toEqual([line('error')]);
  });

  test.each(table(ROUTES))('a cancelled call is cancelled in the process: %s', async (_, way) => {
    const client = await connect(way);
    const leaving = new AbortController();
    const heard = await client.send(
      calling(way, [note('notifications/progress', '"progressToken":$TOKEN,"progress":1,"message":"id $ID"')], {
        id: '"cancel me"',
        meta: '"progressToken":1',
        signal: leaving.signal,
      }),
    );
    const id = /id (\d+)/.exec(await heard.until('notifications/progress'))?.[1];
    if (way.client === 'modern') leaving.abort();
    else await client.say(note('notifications/cancelled', '"requestId":"cancel me","reason":"no more"'));
    const cancelled = await heardBy(client, way, `"requestId":${id},`);
    expect(JSON.parse(cancelled)).toMatchObject({
      method: 'notifications/cancelled',
      params: { requestId: Number(id) },
    });
    if (way === LEGACY) expect(cancelled).toContain('"reason":"no more"');
  });
});

describe('what a server says unasked', () => {
  const LISTS = ['tools', 'prompts', 'resources'];
  const FILTER = '{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}';

  // At /mcp a client without a session hears of the lists of edge servers: to listen at the others would wake them all.
  const LISTENING = ROUTES.filter((way) => way.client === 'legacy' || way.path !== '');

  test.each(table(LISTENING))('lists of all three kinds have changed: %s', async (_, way) => {
    const client = await connect(way);
    const stream = await client.listen(FILTER);
    if (client.era === 'modern') await stream.until('acknowledged');
    const lines = LISTS.map((list) => announced(way, `notifications/${list}/list_changed`));
    const listening = way.server === 'modern' ? [{ await: 'subscriptions/listen' }] : [];
    await send(client, calling(way, [...listening, ...lines, done(way)]));
    for (const list of LISTS) await stream.until(`notifications/${list}/list_changed`);
  });

  test.each(table(ROUTES))('a resource was updated: %s', async (_, way) => {
    const client = await connect(way);
    const uri = `${way.scheme}test:ä?x=1`;
    const stream = await client.listen(`{"resourceSubscriptions":["${uri}"]}`);
    if (client.era === 'modern') await stream.until('acknowledged');
    else await send(client, { method: 'resources/subscribe', params: `"uri":"${uri}"` });
    const updated = announced(way, 'notifications/resources/updated', '"uri":"test:ä?x=1","com.example/more":1');
    await send(client, calling(way, [updated, done(way)]));
    expect(JSON.parse(await stream.until('notifications/resources/updated'))).toMatchObject({
      params: { uri, 'com.example/more': 1 },
    });
  });

  test.each([
    ['a completed elicitation', 'notifications/elicitation/complete', '"elicitationId":"e-1"'],
    ['the status of a task', 'notifications/tasks/status', '"taskId":"t-1","status":"working","ttl":null'],
    ['what nobody knows yet', 'notifications/com.example/future', '"a":[1,{"b":null}],"_meta":{"baggage":"k=v"}'],
  ])('%s, in the era with sessions', async (_, method, params) => {
    for (const way of [LEGACY, at('legacy')]) {
      const client = await connect(way);
      const stream = await client.listen('');
      await send(client, calling(way, [note(method, params), done(way)]));
      expect(await stream.until(method)).toBe(note(method, params));
    }
  });

  test('what nobody knows yet, in a subscription', async () => {
    const client = await connect(MODERN);
    const stream = await client.listen('{"com.example/future":["x"]}');
    expect(await stream.until('acknowledged')).toContain('"com.example/future":["x"]');
    await send(client, calling(MODERN, [announced(MODERN, 'notifications/com.example/future', '"a":1'), done(MODERN)]));
    expect(await stream.until('com.example/future')).toBe(
      note('notifications/com.example/future', '"a":1,"_meta":{"io.modelcontextprotocol/subscriptionId":"listen"}'),
    );
  });
});

test('what concerns everyone, or one call alone, crosses from a process that clients share', async () => {
  const clients = [await connect(LEGACY, '{}'), await connect(LEGACY, '{}')] as const;
  const streams = [await clients[0].listen(''), await clients[1].listen('')] as const;
  await send(clients[0], { method: 'resources/subscribe', params: '"uri":"test:a"' });
  // A session that has only listed has no process yet, and hears nothing of one.
  await send(clients[1], echoing(LEGACY, ''));
  const progress = note('notifications/progress', '"progressToken":$TOKEN,"progress":1');
  const log = note('notifications/message', '"level":"info","data":1');
  const updated = note('notifications/resources/updated', '"uri":"test:a"');
  const changed = note('notifications/tools/list_changed', '"_meta":{"a":1}');
  const unknown = note('notifications/com.example/future', '"a":1');
  const steps = [progress, log, updated, changed, unknown, done(LEGACY)];
  const heard = await clients[0].send(calling(LEGACY, steps, { meta: '"progressToken":"t"' }));
  expect((await heard.all()).slice(0, -1)).toEqual([progress.replace('$TOKEN', '"t"'), log]);
  expect(await streams[0].until('resources/updated')).toBe(updated);
  for (const stream of streams) {
    expect(await stream.until('list_changed')).toBe(changed);
    expect(await stream.until('com.example/future')).toBe(unknown);
  }
  expect(streams[1].texts).not.toContain(updated);
});

describe('what a server asks', () => {
  const ANSWERS = {
    'sampling/createMessage':
      '{"role":"assistant","model":"m","content":{"type":"text","text":"é"},"com.example/more":[1]}',
    'elicitation/create': '{"action":"accept","content":{"name":"Ada"},"_meta":{"baggage":"k=v"}}',
    'roots/list': '{"roots":[{"uri":"file:///a%20b","name":"ü"}],"com.example/more":{"x":1}}',
  };
  const QUESTIONS = [
    [
      'sampling',
      'sampling/createMessage',
      '"messages":[{"role":"user","content":{"type":"text","text":"€"}}],"maxTokens":1,"tools":[],"com.example/more":[1]',
    ],
    [
      'a form',
      'elicitation/create',
      '"mode":"form","message":"who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string"}}},"com.example/more":1',
    ],
    [
      'a form as before 2025-11-25',
      'elicitation/create',
      '"message":"who?","requestedSchema":{"type":"object","properties":{}}',
    ],
    [
      'an address',
      'elicitation/create',
      '"mode":"url","message":"go","url":"https://example.com/?a=b#c","com.example/more":1',
    ],
    ['roots', 'roots/list', '"com.example/more":1'],
  ] as const;
  let questions = 0;
  const TRACE = '"_meta":{"traceparent":"00-1-2-01","com.example/key":{"a":1}}';

  test.each(
    QUESTIONS.flatMap(([what, method, params]) =>
      ROUTES.map((way) => [what, nameOf(way), method, params, way] as const),
    ),
  )('%s: %s', async (_what, _name, method, params, way) => {
    const client = await connect(way);
    const legacyParams = params.includes('"url"') ? `${params},"elicitationId":"e-1"` : params;
    const question = `q: ü ${++questions}`;
    const steps: Step[] =
      way.server === 'legacy'
        ? [
            `{"jsonrpc":"2.0","id":"${question}","method":"${method}","params":{${legacyParams},${TRACE}}}`,
            { await: `"id":"${question}"` },
            done(way, '"heard":$HEARD'),
          ]
        : [
            `{"jsonrpc":"2.0","id":$ID,"result":{"resultType":"input_required","requestState":"s ü","inputRequests":{"q":{"method":"${method}","params":{${params},${TRACE}}}}}}`,
          ];
    const heard = await client.send(calling(way, steps));
    let answer: string;
    let asked: { params: Record<string, unknown> };
    if (client.era === 'legacy') {
      const put = JSON.parse(await heard.until(method)) as { id: unknown; params: Record<string, unknown> };
      asked = put;
      await client.say(`{"jsonrpc":"2.0","id":${JSON.stringify(put.id)},"result":${ANSWERS[method]}}`);
      answer = await heard.answer();
    } else {
      const { result } = JSON.parse(await heard.answer()) as {
        result: { requestState: string; inputRequests: Record<string, { params: Record<string, unknown> }> };
      };
      const [[key, put] = expect.fail()] = Object.entries(result.inputRequests);
      asked = put;
      const retry = `"inputResponses":{"${key}":${ANSWERS[method]}},"requestState":${JSON.stringify(result.requestState)}`;
      const first = calling(way, steps, { id: '2' });
      answer = await send(client, { ...first, params: `${first.params},${retry}` });
    }
    expect(asked.params).toMatchObject(JSON.parse(`{${params},${TRACE}}`) as object);
    const { seen, heard: line } = parsed(answer).result;
    expect(seen ?? line).toContain(ANSWERS[method]);
    if (way.server === 'modern') expect(seen).toContain('"requestState":"s ü"');
  });

  test('what nobody knows yet, in the era with sessions', async () => {
    const client = await connect(LEGACY);
    const steps = [
      '{"jsonrpc":"2.0","id":0,"method":"com.example/ask","params":{"a":[1]}}',
      { await: '"id":0,' },
      done(LEGACY, '"heard":$HEARD'),
    ];
    const heard = await client.send(calling(LEGACY, steps));
    const question = await heard.until('com.example/ask');
    expect(question).toContain('"params":{"a":[1]}');
    const { id } = JSON.parse(question) as { id: unknown };
    await client.say(
      `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":{"code":-32601,"message":"no","data":{"x":1}}}`,
    );
    expect(parsed(await heard.answer()).result.heard).toBe(
      '{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"no","data":{"x":1}}}',
    );
  });
});

describe('what a client says', () => {
  test.each(table(ROUTES.filter((way) => way.client === 'legacy' && way.server === 'legacy')))(
    'its roots have changed: %s',
    async (_, way) => {
      const client = await connect(way);
      await send(client, calling(way, [done(way)]));
      const line = note('notifications/roots/list_changed', '"_meta":{"traceparent":"00"}');
      await client.say(line);
      expect(await heardBy(client, way, '"method":"notifications/roots/list_changed"')).toBe(line);
    },
  );

  test.each(table([LEGACY, MODERN, route('legacy', 'modern')]))(
    'a notification that nobody knows yet: %s',
    async (name, way) => {
      const client = await connect(way);
      await send(client, calling(way, [done(way)]));
      const method = `notifications/com.example/${name.replaceAll(' ', '-')}`;
      await client.say(note(method, '"a":[1,{"b":null}],"_meta":{"baggage":"k=v"}'));
      expect(await heardBy(client, way, `"method":"${method}"`)).toContain('"a":[1,{"b":null}]');
    },
  );

  test.each(table(ROUTES))('completions: %s', async (_, way) => {
    const prompt = way.tool.replace('do', 'p');
    const seen = seenOf(
      await send(await connect(way), {
        method: 'completion/complete',
        params: `"ref":{"type":"ref/prompt","name":"${prompt}","com.example/more":1},"argument":{"name":"a","value":"ü"},"context":{"arguments":{"b":"c"}}`,
      }),
    );
    expect(seen).toContain(
      '"ref":{"type":"ref/prompt","name":"p","com.example/more":1},"argument":{"name":"a","value":"ü"},"context":{"arguments":{"b":"c"}}',
    );
  });

  test.each(table([LEGACY, MODERN, ...BRIDGED]))('a method that nobody knows yet: %s', async (_, way) => {
    const seen = seenOf(await send(await connect(way), { method: 'com.example/future', params: '"a":[1,{"b":null}]' }));
    expect(seen).toContain('"method":"com.example/future","params":{"a":[1,{"b":null}]');
  });

  test.each(table(ROUTES))('members, _meta and trace context of a call: %s', async (_, way) => {
    const meta =
      '"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=b,c=d","baggage":"k=v;p=1","com.example/key":{"b":1,"a":[null]}';
    const sent = echoing(way, '"x":1', { meta });
    const answer = await send(await connect(way), { ...sent, params: `${sent.params},"com.example/more":{"z":[]}` });
    expect(seenOf(answer)).toContain(meta);
    expect(seenOf(answer)).toContain('"com.example/more":{"z":[]}');
  });

  test.each(table(ROUTES.filter((way) => way.client === 'modern')))(
    'headers Mcp-Param-* that no tool names: %s',
    async (_, way) => {
      const heard = await (await connect(way)).send(
        echoing(way, '"x":1', { headers: { 'mcp-param-of-the-future': '=?base64?8J+Ygg==?=' } }),
      );
      expect([heard.status, seenOf(await heard.answer())]).toEqual([200, expect.stringContaining('"x":1')]);
    },
  );
});

describe('what a server answers', () => {
  test.each(table(ROUTES))('members and _meta of a result: %s', async (_, way) => {
    const members = '"structuredContent":{"b":1,"a":[null]},"com.example/more":{"z":[]}';
    const meta = '"traceparent":"00-1-2-01","com.example/key":{"b":1}';
    const answer = await send(await connect(way), calling(way, [done(way, `${members},"_meta":{${meta}}`)]));
    expect(answer).toContain(members);
    expect(answer).toContain(meta);
  });

  test.each(table(ROUTES))('an error with its data: %s', async (_, way) => {
    const error = '"error":{"code":-31999,"message":"ü","data":{"b":1,"a":[null]},"com.example/more":1}';
    const answer = await send(await connect(way), calling(way, [`{"jsonrpc":"2.0","id":$ID,${error}}`]));
    expect(answer).toContain(error);
  });

  test.each(table(ROUTES))('members of a listed tool: %s', async (_, way) => {
    expect(await send(await connect(way), { method: 'tools/list' })).toContain(
      `{"name":"${way.tool}","inputSchema":{"type":"object"},"com.example/future":true}`,
    );
  });
});

describe('capabilities that nobody knows yet', () => {
  const capabilities = ['"com.example/future":{"since":2030}', '"extensions":{"com.example/extension":{"deep":[1]}}'];
  const more = '"com.example/more":{"z":[]}';

  test.each(table([LEGACY, route('legacy', 'modern')]))('%s', async (_, way) => {
    const { initialized, ...client } = (await connect(way)) as Awaited<ReturnType<typeof legacyClient>>;
    const told =
      way === LEGACY
        ? await heardBy(client, way, '"method":"initialize"')
        : seenOf(await send(client, echoing(way, '')));
    expect(initialized).toContain(more);
    for (const each of capabilities) {
      expect(initialized).toContain(each);
      expect(told).toContain(each);
    }
  });

  test.each(table([MODERN, route('modern', 'legacy')]))('%s', async (_, way) => {
    const client = await connect(way);
    const discovered = await send(client, { method: 'server/discover' });
    const told =
      way === MODERN
        ? seenOf(await send(client, echoing(way, '')))
        : await heardBy(client, way, '"method":"initialize"');
    expect(discovered).toContain(more);
    for (const each of capabilities) {
      expect(discovered).toContain(each);
      expect(told).toContain(each);
    }
  });
});

describe('tasks', () => {
  test('the experimental ones of 2025-11-25', async () => {
    const client = await connect(LEGACY, '{"tasks":{"list":{},"cancel":{}},"sampling":{}}');
    const stream = await client.listen('');
    const task = '"task":{"taskId":"t-ü","status":"working","ttl":60000,"createdAt":"2026-01-01T00:00:00Z"}';
    const created = `{"jsonrpc":"2.0","id":$ID,"result":{${task},"_meta":{"io.modelcontextprotocol/model-immediate-response":"wait"}}}`;
    const status = note('notifications/tasks/status', '"taskId":"t-ü","status":"working","ttl":60000');
    const call = calling(LEGACY, [created, status]);
    const answer = await send(client, { ...call, params: `${call.params},"task":{"ttl":60000}` });
    expect(answer).toContain(`"result":{${task}`);
    expect(await stream.until('tasks/status')).toBe(status);
    for (const method of ['tasks/get', 'tasks/result', 'tasks/cancel', 'tasks/list']) {
      const params = method === 'tasks/list' ? '"cursor":"c"' : '"taskId":"t-ü"';
      const seen = seenOf(
        await send(client, { method, params, meta: '"io.modelcontextprotocol/related-task":{"taskId":"t-ü"}' }),
      );
      expect(seen).toContain(
        `"method":"${method}","params":{${params},"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t-ü"}}}`,
      );
    }
  });

  test('the extension of 2026-07-28 passes', async () => {
    const client = await connect(MODERN, '{"extensions":{"io.modelcontextprotocol/tasks":{}}}');
    const task = '"resultType":"task","taskId":"t-ü","status":"working","ttlMs":60000,"pollIntervalMs":5';
    expect(await send(client, calling(MODERN, [`{"jsonrpc":"2.0","id":$ID,"result":{${task}}}`]))).toContain(task);
    for (const method of ['tasks/get', 'tasks/update', 'tasks/cancel']) {
      const seen = seenOf(
        await send(client, { method, params: '"taskId":"t-ü","inputResponses":{"q":{"a":1}}', name: 't-ü' }),
      );
      expect(seen).toContain(`"method":"${method}","params":{"taskId":"t-ü","inputResponses":{"q":{"a":1}}`);
    }
  });
});

describe('every byte that matters', () => {
  test.each(table(ROUTES))('10 MB each way: %s', async (_, way) => {
    const text = 'ä"\\n'.replace('"', '\\"').repeat(1_300_000);
    const answer = await send(await connect(way), echoing(way, `"text":"${text}"`));
    const seen = seenOf(answer);
    expect(seen.length).toBeGreaterThan(text.length);
    expect(seen.includes(`"text":"${text}"`)).toBe(true);
  });

  test.each(
    ROUTES.flatMap((way) =>
      [
        '0',
        '-1',
        '""',
        '" "',
        '"ü\\u0000😀\\\\"',
        `"${'x'.repeat(1000)}"`,
        '9007199254740991',
        '"9007199254740993"',
        '"__proto__"',
      ].map((id) => [id.slice(0, 30), nameOf(way), id, way] as const),
    ),
  )('the id %s: %s', async (_text, _name, id, way) => {
    const answer = await send(await connect(way), echoing(way, '', { id }));
    expect(JSON.stringify(parsed(answer).id)).toBe(JSON.stringify(JSON.parse(id)));
  });

  test.each(table(ROUTES))('the same id at the same time in two clients: %s', async (_, way) => {
    const clients = [await connect(way), await connect(way)];
    const answers = await Promise.all(
      clients.flatMap((client, n) =>
        [1, 2, 3].map((id) => send(client, echoing(way, `"who":"${n}-${id}"`, { id: String(id) }))),
      ),
    );
    expect(answers.map((answer) => [parsed(answer).id, /"who":"([\d-]+)"/.exec(seenOf(answer))?.[1]])).toEqual(
      clients.flatMap((_client, n) => [1, 2, 3].map((id) => [id, `${n}-${id}`])),
    );
  });

  test.each([
    ['beyond the first plane', '"😀𐍈"', '"😀𐍈"'],
    ['escaped, written as itself', '"\\u00e9\\/\\ud83d\\ude00"', '"é/😀"'],
    ['a lone surrogate, which UTF-8 cannot hold', '"a\\ud800b\\udc00"', '"a\\ud800b\\udc00"'],
    ['NUL and other controls', '"\\u0000\\u001f\\b\\f\\n\\r\\t\\u007f"', '"\\u0000\\u001f\\b\\f\\n\\r\\t\u007f"'],
    ['separators that end a line in JavaScript', '"\u2028\u2029\u0085"', '"\u2028\u2029\u0085"'],
    [
      'what ends or begins an event',
      '"\\n\\ndata: {}\\r\\n\\r\\nid: 7\\n: x"',
      '"\\n\\ndata: {}\\r\\n\\r\\nid: 7\\n: x"',
    ],
    ['a byte order mark', '"\ufeffx"', '"\ufeffx"'],
    ['decomposed, not normalised', '"e\u0301\ufb01"', '"e\u0301\ufb01"'],
    ['not for a web page alone', '"<script>&amp;"', '"<script>&amp;"'],
    [
      'names that objects have',
      '{"__proto__":{"a":1},"constructor":2,"toString":3}',
      '{"__proto__":{"a":1},"constructor":2,"toString":3}',
    ],
    ['the order of members', '{"b":1,"a":2}', '{"b":1,"a":2}'],
    ['a member twice: the last one alone', '{"a":1,"b":2,"a":3}', '{"a":3,"b":2}'],
    [
      'integers that no double holds',
      '[9007199254740993,-18446744073709551615,1784467200123456789]',
      '[9007199254740993,-18446744073709551615,1784467200123456789]',
    ],
    [
      'fractions that no double holds',
      '[0.12345678901234567890,123456789.123456789]',
      '[0.12345678901234567890,123456789.123456789]',
    ],
    ['powers that no double holds', '[1e400,-1E+400,1e-400]', '[1e400,-1E+400,1e-400]'],
    ['numbers in other words', '[1.0,1e2,0.10,100,1e21,0.0000001]', '[1,100,0.1,100,1e+21,1e-7]'],
    ['empty', '[{},[],"",null]', '[{},[],"",null]'],
  ])('text and numbers: %s', async (_, value, expected) => {
    for (const way of ROUTES) {
      const client = await connect(way);
      expect
        .soft(seenOf(await send(client, echoing(way, `"v":${value}`))), `${nameOf(way)}, in`)
        .toContain(`"v":${expected}`);
      const back = await send(client, calling(way, [done(way, `"structuredContent":{"v":${value}}`)]));
      expect.soft(back, `${nameOf(way)}, back`).toContain(`"structuredContent":{"v":${expected}}`);
    }
  });
});
