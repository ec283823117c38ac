/** Bearer tokens: what they look like, and the book of those that live, on SQLite as Durable Objects have it. */
import { DatabaseSync } from 'node:sqlite';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { TokenBook } from '../../edge/auth/tokens/book.ts';
import { mintToken, TOKEN_BYTES, tokenId } from '../../edge/auth/tokens/format.ts';
import type { SqlValue } from '../../edge/session/sql.ts';
import type { NewToken } from '../../shared/tokens.ts';

const bytes = fc.uint8Array({ minLength: TOKEN_BYTES, maxLength: TOKEN_BYTES });

describe('a token', () => {
  test('is recognized by its looks, and found again by its id', () => {
    fc.assert(
      fc.property(bytes, (random) => {
        fc.pre(random.filter((byte) => byte < 248).length >= 40);
        const { token, id } = mintToken(random);
        expect(token).toMatch(/^moor_[0-9A-Za-z]{46}$/);
        expect(tokenId(token)).toBe(id);
        expect(token.slice(5, 13)).toBe(id);
      }),
    );
  });

  test('that lost or changed a character is none', () => {
    const { token } = mintToken(Uint8Array.from({ length: TOKEN_BYTES }, (_, n) => (n * 37) % 248));
    fc.assert(
      fc.property(fc.nat(token.length - 1), fc.constantFrom(...'0Aaz_'), (at, other) => {
        fc.pre(token[at] !== other);
        expect(tokenId(token.slice(0, at) + other + token.slice(at + 1))).toBe(null);
        expect(tokenId(token.slice(0, at) + token.slice(at + 1))).toBe(null);
      }),
    );
  });

  test('is not made of too little chance', () => {
    expect(() => mintToken(new Uint8Array(TOKEN_BYTES).fill(255))).toThrow('Too few');
  });
});

describe('the book', () => {
  const wish: NewToken = { name: 'ci', subject: 'ci', scopes: ['mcp'], groups: [], expiresAt: null };
  const digest = new Uint8Array(32).buffer;
  const yes = () => true;
  let book: TokenBook;
  beforeEach(() => {
    const database = new DatabaseSync(':memory:');
    book = new TokenBook({
      exec<Row>(query: string, ...bindings: SqlValue[]) {
        const values = bindings.map((value) => (value instanceof ArrayBuffer ? new Uint8Array(value) : value));
        const rows = database.prepare(query).all(...values) as Row[];
        return { toArray: () => rows, one: () => rows[0] as Row };
      },
    });
  });

  test('knows a token by its digest alone', () => {
    book.create('a', digest, wish, 'owner', 1);
    expect(book.find('a', () => false, 2)).toBe(null);
    expect(book.find('b', yes, 2)).toBe(null);
    expect(book.find('a', yes, 2)).toMatchObject({ name: 'ci', scopes: ['mcp'], createdBy: 'owner' });
  });

  test('knows no token that ended', () => {
    book.create('a', digest, { ...wish, expiresAt: 100 }, 'owner', 1);
    expect(book.find('a', yes, 99)).not.toBe(null);
    expect(book.find('a', yes, 100)).toBe(null);
    book.create('b', digest, wish, 'owner', 101);
    expect(book.revoke('ci', 102)).toMatchObject({ id: 'b', revokedAt: 102 });
    expect(book.find('b', yes, 103)).toBe(null);
    expect(book.isLiving('b', 103)).toBe(false);
    expect(book.revoke('b', 104)).toBe(null);
  });

  test('gives a name to one living token', () => {
    book.create('a', digest, wish, 'owner', 1);
    expect(() => book.create('b', digest, wish, 'owner', 2)).toThrow('There is a token named "ci"');
    book.revoke('a', 3);
    book.create('b', digest, wish, 'owner', 4);
    expect(book.list().map(({ id }) => id)).toEqual(['b', 'a']);
  });

  test('forgets what ended a month ago', () => {
    book.create('a', digest, wish, 'owner', 1);
    book.revoke('a', 2);
    book.create('b', digest, wish, 'owner', 31 * 24 * 60 * 60 * 1000);
    expect(book.list().map(({ id }) => id)).toEqual(['b']);
  });

  test('writes the time of use down by the hour', () => {
    book.create('a', digest, wish, 'owner', 1);
    const hour = 60 * 60 * 1000;
    for (const at of [hour, hour + 1, 2 * hour - 1]) book.find('a', yes, at);
    expect(book.list()[0]?.usedAt).toBe(hour);
    book.find('a', yes, 2 * hour);
    expect(book.list()[0]?.usedAt).toBe(2 * hour);
  });
});
