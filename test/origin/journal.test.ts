/** Streams of the agent: cut, resumed, and found again by the next agent. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KEPT_MS, STREAM_ROOM } from '../../origin/journal/bounds.ts';
import { Connection } from '../../origin/journal/connection.ts';
import { Journal } from '../../origin/journal/journal.ts';
import type { Stream } from '../../origin/journal/stream.ts';
import type { Log } from '../../origin/log.ts';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';

const warnings: string[] = [];
const quiet = () => undefined;
const log: Log = {
  debug: quiet,
  info: quiet,
  warn: (text) => warnings.push(text),
  error: quiet,
  server: quiet,
  machine: quiet,
};
const freshPath = () => join(mkdtempSync(join(tmpdir(), 'moorage-journal-')), 'streams.db');
const journalAt = (path = freshPath(), now?: () => number) => new Journal({ path, log, ...(now ? { now } : {}) });

const call: JsonRpcRequest = { jsonrpc: '2.0', id: 'q1', method: 'tools/call' };
const progress = (value: unknown) => ({ jsonrpc: '2.0', method: 'notifications/progress', params: { value } }) as const;
const response = { jsonrpc: '2.0', id: 'q1', result: {} } as const;

/** The edge's end of a connection: what arrived, and where it would go on. */
class Reader {
  readonly wire: PassThrough;
  readonly messages: Record<string, unknown>[] = [];
  after: number;
  #text = '';

  constructor(stream: Stream, after: number, options: { primed?: boolean; highWaterMark?: number } = {}) {
    this.after = after;
    this.wire = new PassThrough({ highWaterMark: options.highWaterMark ?? 16_384 });
    Object.assign(this.wire, { writeHead: () => this.wire });
    new Connection(this.wire as unknown as ServerResponse, stream, {
      after,
      primed: options.primed ?? true,
    });
  }

  /** Takes everything that is there. */
  read(): this {
    for (let chunk = this.wire.read(); chunk !== null; chunk = this.wire.read()) this.#text += String(chunk);
    for (let end = this.#text.indexOf('\n\n'); end !== -1; end = this.#text.indexOf('\n\n')) {
      const block = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 2);
      const n = /^id: o\.[^.]+\.(\d+)$/m.exec(block)?.[1];
      if (n !== undefined) this.after = Number(n);
      const data = /^data: (.+)$/m.exec(block)?.[1];
      if (data) this.messages.push(JSON.parse(data) as Record<string, unknown>);
    }
    return this;
  }

  async cut(): Promise<void> {
    this.wire.destroy();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test('a stream begins with an id and no data, and its reader leaves with the response', async () => {
  const stream = journalAt().begin('s', call);
  const reader = new Reader(stream, 0);
  expect(String(reader.wire.read())).toBe(`id: o.${stream.id}.0\nretry: 3000\ndata: \n\n`);
  stream.append(progress(1));
  stream.end(response);
  expect(reader.read().messages).toEqual([progress(1), response]);
  expect(reader.wire.writableEnded).toBe(true);
});

test('a reader that takes no event without data gets a comment instead', () => {
  const reader = new Reader(journalAt().begin('s', call), 0, { primed: false });
  expect(String(reader.wire.read())).toBe(': keep-alive\n\n');
});

test('a stream of another session is not found, running or ended', () => {
  const journal = journalAt();
  const stream = journal.begin('s', call);
  expect([journal.find('s', stream.id), journal.find('other', stream.id)]).toEqual([stream, undefined]);
  stream.end(response);
  expect(journal.find('s', stream.id)?.ended).toBe(true);
  expect(journal.find('other', stream.id)).toBeUndefined();
});

test('the newest reader wins, the older one is ended', () => {
  const stream = journalAt().begin('s', call);
  const [older, newer] = [new Reader(stream, 0), new Reader(stream, 0)];
  stream.append(progress(1));
  expect([older.wire.writableEnded, older.read().messages, newer.read().messages]).toEqual([true, [], [progress(1)]]);
});

test('beyond its bound a stream loses its oldest notifications, never a question or the response', () => {
  const stream = journalAt().begin('s', call);
  const question = { jsonrpc: '2.0', id: 'ask', method: 'sampling/createMessage' } as const;
  stream.append(question);
  for (let n = 0; n < STREAM_ROOM.messages + 5; n++) stream.append(progress(n));
  stream.end(response);
  const { messages } = new Reader(stream, 0, { highWaterMark: 1 << 24 }).read();
  expect(messages).toHaveLength(STREAM_ROOM.messages + 1);
  expect([messages[0], messages[1], messages.at(-1)]).toEqual([question, progress(6), response]);
});

test('the next agent replays what had ended, and ends what was running: its outcome is unknown', () => {
  const path = freshPath();
  const first = journalAt(path);
  const [ended, running] = [first.begin('s', call), first.begin('s', { ...call, id: 7 })];
  ended.append(progress(1));
  ended.end(response);
  running.append(progress(2));
  const second = journalAt(path);
  const found = [ended, running].map(({ id }) => second.find('s', id) ?? expect.fail('not found'));
  expect(new Reader(found[0] as Stream, 1).read().messages).toEqual([response]);
  expect(new Reader(found[1] as Stream, 0).read().messages).toEqual([
    progress(2),
    {
      jsonrpc: '2.0',
      id: 7,
      error: expect.objectContaining({ data: expect.objectContaining({ code: 'outcome_unknown' }) }),
    },
  ]);
});

test('age: an ended stream is given up after its time, a running one is not', () => {
  let now = 0;
  const journal = journalAt(freshPath(), () => now);
  const [ended, running] = [journal.begin('s', call), journal.begin('s', call)];
  ended.end(response);
  now = KEPT_MS;
  journal.sweep();
  expect([journal.find('s', ended.id), journal.find('s', running.id)]).toEqual([undefined, running]);
});

test('a session that has ended is forgotten', () => {
  const journal = journalAt();
  const [mine, other] = [journal.begin('s', call), journal.begin('other', call)];
  for (const stream of [mine, other]) stream.end(response);
  journal.forget('s');
  expect([journal.find('s', mine.id)?.id, journal.find('other', other.id)?.id]).toEqual([undefined, other.id]);
});

test('a file that is no database is begun anew; a database that cannot be written costs no call', () => {
  const path = freshPath();
  writeFileSync(path, 'this is no database, and longer than the header of one: '.repeat(20));
  const journal = journalAt(path);
  expect(warnings.at(-1)).toContain('begun anew');
  const stream = journal.begin('s', call);
  const reader = new Reader(stream, 0);
  journal.close();
  stream.append(progress(1));
  stream.end(response);
  expect(reader.read().messages).toEqual([progress(1), response]);
  expect(warnings.at(-1)).toContain('cannot be kept');
});

test('tables of another form are begun anew', () => {
  const path = freshPath();
  const older = new DatabaseSync(path);
  older.exec('CREATE TABLE stream (id TEXT); CREATE TABLE event (n INTEGER)');
  older.close();
  const stream = journalAt(path).begin('s', call);
  stream.end(response);
  expect(journalAt(path).find('s', stream.id)?.last).toBe(1);
});

test('for any cuts, resumes, slow readers and restarts: every message arrives once, in order', async () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('say' as const), size: fc.integer({ min: 1, max: 400 }) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('read' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('cut' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('resume' as const) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.boolean(), async (steps, restart) => {
      const path = freshPath();
      let journal = journalAt(path);
      let stream = journal.begin('s', call);
      const said: unknown[] = [];
      const got: unknown[] = [];
      let reader = new Reader(stream, 0, { highWaterMark: 256 });
      const leave = async () => {
        got.push(...reader.messages);
        await reader.cut();
      };
      const come = async () => {
        await leave();
        reader = new Reader(stream, reader.after, { highWaterMark: 256 });
      };
      for (const action of steps) {
        if (action.do === 'say') {
          const message = progress('x'.repeat(action.size) + said.length);
          said.push(message);
          stream.append(message);
        } else if (action.do === 'read') {
          reader.read();
          await new Promise((resolve) => setImmediate(resolve));
        } else if (action.do === 'resume') await come();
        else await reader.cut();
      }
      if (restart) {
        journal = journalAt(path);
        stream = journal.find('s', stream.id) ?? expect.fail('not found');
        said.push(expect.objectContaining({ error: expect.anything() }));
      } else {
        stream.end(response);
        said.push(response);
      }
      await come();
      for (let turn = 0; !reader.wire.readableEnded && turn < 1000; turn++) {
        reader.read();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await leave();
      expect(got).toEqual(said);
    }),
    { numRuns: 60 },
  );
});
