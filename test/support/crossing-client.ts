/**
 * Clients of both eras that see and say bytes: bodies are given as JSON text, and what comes is kept as text, so that a
 * test can tell a message that crossed from one that was written anew.
 */
import { encodeHeaderValue } from '../../shared/mirrored-headers.ts';

export type Era = 'legacy' | 'modern';

export interface Sent {
  readonly method: string;
  /** Members of `params` as JSON text, without the braces. */
  readonly params?: string;
  /** Members of `params._meta` as JSON text. */
  readonly meta?: string;
  /** The id as JSON text. */
  readonly id?: string;
  /** What `Mcp-Name` must repeat (2026-07-28). */
  readonly name?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** What comes in answer to one request: the messages of its stream, or the one that is its body, as text. */
export class Heard {
  readonly status: number;
  /** Messages that came so far. */
  readonly texts: string[] = [];
  #from = 0;
  readonly #reader: AsyncIterator<string>;

  constructor(response: Response) {
    this.status = response.status;
    this.#reader = messagesOf(response);
  }

  /** The next message that has this text, passing over others. */
  async until(text: string): Promise<string> {
    for (;;) {
      for (; this.#from < this.texts.length; this.#from++) {
        const message = this.texts[this.#from];
        if (message?.includes(text)) {
          this.#from++;
          return message;
        }
      }
      const next = await this.#reader.next();
      if (next.done) throw new Error(`The stream ended without ${text}: ${this.texts.join('\n').slice(0, 2000)}`);
      this.texts.push(next.value);
    }
  }

  /** All messages, when the stream has ended. */
  async all(): Promise<string[]> {
    for (let next = await this.#reader.next(); !next.done; next = await this.#reader.next()) {
      this.texts.push(next.value);
    }
    return this.texts;
  }

  /** The last message of a stream that has ended. */
  async answer(): Promise<string> {
    return (await this.all()).at(-1) ?? '';
  }

  async leave(): Promise<void> {
    await this.#reader.return?.();
  }
}

async function* messagesOf(response: Response): AsyncGenerator<string> {
  if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
    const text = await response.text();
    if (text !== '') yield text;
    return;
  }
  const parts: string[] = [];
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for await (const chunk of response.body ?? []) {
    parts.push(decoder.decode(chunk, { stream: true }));
    if (!parts.at(-1)?.includes('\n')) continue;
    const events = parts.join('').split('\n\n');
    parts.splice(0, parts.length, events.pop() ?? '');
    for (const event of events) {
      const data = event.split('\n').find((line) => line.startsWith('data: {'));
      if (data !== undefined) yield data.slice('data: '.length);
    }
  }
}

const JSON_HEADERS = { accept: 'application/json, text/event-stream', 'content-type': 'application/json' };

export interface CrossingClient {
  readonly era: Era;
  send(sent: Sent): Promise<Heard>;
  /** A message that is no request, as it is. */
  say(text: string): Promise<Response>;
  /** What is said unasked: the session's own stream, or a subscription with this filter (JSON text). */
  listen(filter: string): Promise<Heard>;
  close(): Promise<void>;
}

let clients = 0;
/** Every client has a name of its own, by which a server tells them apart. */
const nameOf = () => `crossing-${++clients}`;

const body = (id: string, method: string, params: string, meta: string) =>
  `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)},"params":{${[params, meta && `"_meta":{${meta}}`]
    .filter((part) => part !== '')
    .join(',')}}}`;

/** A client with a session. `capabilities` is JSON text. */
export async function legacyClient(
  url: string,
  capabilities: string,
): Promise<CrossingClient & { initialized: string }> {
  const session: Record<string, string> = {};
  const post = (text: string, { headers, signal }: Pick<Sent, 'headers' | 'signal'> = {}) =>
    fetch(url, {
      method: 'POST',
      headers: { ...JSON_HEADERS, ...session, ...headers },
      body: text,
      signal: signal ?? null,
    });
  const say = async (text: string) => {
    const response = await post(text);
    await response.text();
    return response;
  };
  const params = `"protocolVersion":"2025-11-25","capabilities":${capabilities},"clientInfo":{"name":"${nameOf()}","version":"1"}`;
  const opened = await post(body('"init"', 'initialize', params, ''));
  session['mcp-session-id'] = opened.headers.get('mcp-session-id') ?? '';
  session['mcp-protocol-version'] = '2025-11-25';
  const initialized = await new Heard(opened).answer();
  await say('{"jsonrpc":"2.0","method":"notifications/initialized"}');
  const left = new AbortController();
  return {
    era: 'legacy',
    initialized,
    send: async ({ method, params: members = '', meta = '', id = '1', ...rest }) =>
      new Heard(await post(body(id, method, members, meta), rest)),
    say,
    listen: async () =>
      new Heard(await fetch(url, { headers: { accept: 'text/event-stream', ...session }, signal: left.signal })),
    close: async () => {
      left.abort();
      await fetch(url, { method: 'DELETE', headers: session });
    },
  };
}

/** A client without sessions. `capabilities` is JSON text. */
export function modernClient(url: string, capabilities: string): CrossingClient {
  const envelope = [
    '"io.modelcontextprotocol/protocolVersion":"2026-07-28"',
    `"io.modelcontextprotocol/clientCapabilities":${capabilities}`,
    `"io.modelcontextprotocol/clientInfo":{"name":"${nameOf()}","version":"1"}`,
  ].join(',');
  const left = new AbortController();
  const send = async ({ method, params = '', meta = '', id = '1', name, headers, signal }: Sent) => {
    const response = await fetch(url, {
      method: 'POST',
      headers: {
        ...JSON_HEADERS,
        'mcp-protocol-version': '2026-07-28',
        'mcp-method': method,
        ...(name === undefined ? {} : { 'mcp-name': encodeHeaderValue(name) }),
        ...headers,
      },
      body: body(id, method, params, meta === '' ? envelope : `${envelope},${meta}`),
      signal: signal ? AbortSignal.any([signal, left.signal]) : left.signal,
    });
    return new Heard(response);
  };
  return {
    era: 'modern',
    send,
    say: (text) =>
      fetch(url, {
        method: 'POST',
        headers: { ...JSON_HEADERS, 'mcp-protocol-version': '2026-07-28' },
        body: text,
      }),
    listen: (filter) => send({ method: 'subscriptions/listen', params: `"notifications":${filter}`, id: '"listen"' }),
    close: async () => left.abort(),
  };
}
