/** What a Session object keeps for streams, on a SQLite of Node's in place of the object's. */
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CALL_ROOM, CALL_TABLES, Calls, ENDED_CALLS, KEPT_MS } from '../../edge/session/calls.ts';
import { OUTGOING_TABLES, Outgoing, ROOM } from '../../edge/session/outgoing.ts';
import type { Sql, SqlValue } from '../../edge/session/sql.ts';
import { SessionStore } from '../../edge/session/store.ts';

function sqlOf(database: DatabaseSync): Sql {
  return {
    exec: <Row extends Record<string, SqlValue>>(text: string, ...values: SqlValue[]) => {
      const isSchema = /^\s*(CREATE|ALTER)/.test(text);
      if (isSchema) database.exec(text);
      const rows = isSchema ? [] : database.prepare(text).all(...(values as SQLInputValue[]));
      return { toArray: () => rows as Row[], one: () => rows[0] as Row };
    },
  };
}
const fresh = (tables: string) => {
  const database = new DatabaseSync(':memory:');
  database.exec(tables);
  return sqlOf(database);
};

describe('a session’s own stream', () => {
  test('for any cuts and resumes, every message arrives once, in order', () => {
    const action = fc.constantFrom('say', 'say', 'die', 'close', 'resume');
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const outgoing = new Outgoing(fresh(OUTGOING_TABLES));
        outgoing.open('s', 'stream');
        let connection: 'live' | 'dead' | 'none' = 'live';
        let last = 0;
        let said = 0;
        const got: string[] = [];
        const take = (messages: readonly { n: number; text: string }[]) => {
          for (const { n, text } of messages) {
            last = n;
            got.push(text);
          }
        };
        const resume = () => {
          take(outgoing.resume('s', 'stream', last) ?? expect.fail('superseded'));
          connection = 'live';
        };
        for (const next of actions) {
          if (next === 'die' && connection === 'live') connection = 'dead';
          if (next === 'close') connection = 'none';
          if (next === 'resume') resume();
          if (next !== 'say') continue;
          const text = String(++said);
          const n = outgoing.keep('s', text, true, connection === 'none' ? null : 'stream') ?? expect.fail('not kept');
          if (connection === 'live') take([{ n, text }]);
        }
        resume();
        expect(got).toEqual(Array.from({ length: said }, (_, n) => String(n + 1)));
      }),
    );
  });

  test('what was sent gives way to what waits, and what waits to nothing that was sent', () => {
    const outgoing = new Outgoing(fresh(OUTGOING_TABLES));
    outgoing.open('s', 'stream');
    outgoing.keep('s', 'a question that was sent', false, 'stream');
    for (let n = 0; n < ROOM.messages; n++) outgoing.keep('s', `waiting ${n}`, true, null);
    expect(outgoing.resume('s', 'stream', 0)?.map(({ text }) => text)).toEqual(
      Array.from({ length: ROOM.messages }, (_, n) => `waiting ${n}`),
    );
  });

  test('sessions of one object do not see each other', () => {
    const outgoing = new Outgoing(fresh(OUTGOING_TABLES));
    outgoing.keep('a', 'for a', true, null);
    expect(outgoing.open('b', 'stream-of-b')).toEqual([]);
    expect(outgoing.resume('a', 'stream-of-b', 0)).toBeUndefined();
    expect(outgoing.open('a', 'stream-of-a').map(({ text }) => text)).toEqual(['for a']);
  });
});

describe('calls of edge servers', () => {
  const running = () => {
    const calls = new Calls(fresh(CALL_TABLES));
    calls.begin('s', 'call', '"q1"', 0);
    return calls;
  };

  test('large messages come back whole, in their order', () => {
    const calls = running();
    const large = '😀'.repeat(600_000);
    calls.record('call', { n: 1, text: 'small' }, 'droppable', 0);
    calls.record('call', { n: 2, text: large }, 'last', 0);
    expect(calls.after('call', 0).map(({ text }) => text === large || text)).toEqual(['small', true]);
    expect(calls.after('call', 1)).toHaveLength(1);
  });

  test('a lost call ends once, after whatever its client may have seen; an ended one is not lost', () => {
    const calls = running();
    calls.record('call', { n: 5, text: '{}' }, 'droppable', 0);
    const lost = calls.abandon('s', 'call', 0) ?? expect.fail('nothing was lost');
    expect(JSON.parse(lost.text)).toMatchObject({ id: 'q1', error: { data: { code: 'outcome_unknown' } } });
    calls.record('call', { n: 6, text: 'too late' }, 'last', 0);
    expect([calls.abandon('s', 'call', 0), calls.find('s', 'call')]).toEqual([undefined, 'ended']);
    expect(calls.after('call', 5)).toEqual([lost]);
  });

  test('bounds: notifications of one call, ended calls of a session, their age', () => {
    const calls = running();
    for (let n = 1; n <= CALL_ROOM.messages + 3; n++) calls.record('call', { n, text: 'x' }, 'droppable', 0);
    expect(calls.after('call', 0)).toHaveLength(CALL_ROOM.messages);
    for (let n = 0; n <= ENDED_CALLS + 1; n++) {
      calls.begin('s', `call-${n}`, '1', n);
      calls.record(`call-${n}`, { n: 1, text: 'x' }, 'last', n);
    }
    calls.begin('s', 'newest', '1', ENDED_CALLS + 2);
    expect(['call-0', 'call-1', 'call-2', 'call'].map((call) => calls.find('s', call))).toEqual([
      undefined,
      undefined,
      'ended',
      'running',
    ]);
    calls.begin('s', 'later', '1', KEPT_MS + ENDED_CALLS + 2);
    expect(calls.find('s', `call-${ENDED_CALLS + 1}`)).toBeUndefined();
  });
});

test('an object of before streams could be resumed keeps its sessions and what waited for them', () => {
  const database = new DatabaseSync(':memory:');
  database.exec(`
    CREATE TABLE session (id TEXT PRIMARY KEY, state TEXT NOT NULL, due INTEGER NOT NULL);
    CREATE TABLE queued (
      seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, bytes INTEGER NOT NULL,
      droppable INTEGER NOT NULL, text TEXT NOT NULL);
    INSERT INTO queued (session, bytes, droppable, text) VALUES ('s', 7, 1, 'waiting');
  `);
  const store = new SessionStore({ sql: sqlOf(database), deleteAlarm: async () => {}, deleteAll: async () => {} });
  expect(store.outgoing.open('s', 'stream').map(({ text }) => text)).toEqual(['waiting']);
  store.calls.begin('s', 'call', '1', 0);
  expect(store.calls.find('s', 'call')).toBe('running');
});
