import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dataOf, eventOf, idOf, isAnswer, messageOf, type PassedEvent, SseScanner } from '../../edge/sse.ts';

const bytes = (text: string) => new TextEncoder().encode(text);
const whole = (text: string): PassedEvent => ({ parts: [bytes(text)], bytes: text.length });
const textOf = (event: PassedEvent) => Buffer.concat(event.parts).toString();

describe('the scanner', () => {
  test('finds the same events wherever the chunks are cut', () => {
    const piece = fc.oneof(
      fc.constantFrom(': keep-alive\n\n', 'data: {"a":1}\n\n', 'event: message\r\ndata: ä€😀\r\n\r\n', '\n', 'id: 7\n'),
      fc.string({ maxLength: 20 }).map((text) => `data: ${text.replaceAll(/[\r\n]/g, '')}\n\n`),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), fc.array(fc.nat(400)), (pieces, cuts) => {
        const stream = bytes(pieces.join(''));
        const uncut = new SseScanner().push(stream).map(textOf);
        const scanner = new SseScanner();
        const ends = [...cuts.filter((cut) => cut < stream.length).sort((a, b) => a - b), stream.length];
        const found: string[] = [];
        let from = 0;
        for (const end of ends) {
          found.push(...scanner.push(stream.subarray(from, end)).map(textOf));
          from = end;
        }
        expect(found).toEqual(uncut);
        // What was handed on and what is held make up what came.
        expect(Buffer.byteLength(found.join('')) + scanner.held).toBe(stream.length);
      }),
    );
  });

  test('holds back an event that has not ended', () => {
    const scanner = new SseScanner();
    expect(scanner.push(bytes(': hi\n\ndata: {"half'))).toHaveLength(1);
    expect(scanner.held).toBe('data: {"half'.length);
  });
});

describe('an event', () => {
  test.each([
    ['data: {"a":1}\n\n', '{"a":1}'],
    ['data:{"a":1}\n\n', '{"a":1}'],
    ['event: message\r\ndata: one\r\ndata: two\r\n\r\n', 'one\ntwo'],
    [': comment\n\n', undefined],
    ['id: 7\n\n', undefined],
  ])('%j carries %j', (text, data) => {
    expect(dataOf(whole(text))).toBe(data);
  });

  test('that we write is read back', () => {
    const message = { jsonrpc: '2.0', id: 1, result: { text: 'line\nbreak € 😀' } } as const;
    expect(messageOf({ parts: [eventOf(message)], bytes: 0 })).toEqual(message);
  });

  test.each([
    ['the response', { id: 1, result: {} }, true],
    ['an error', { id: 1, error: { code: 1, message: '' } }, true],
    ['a response to another request', { id: 2, result: {} }, false],
    ['a response whose id has another type', { id: '1', result: {} }, false],
    ['a request of the server with the same id', { id: 1, method: 'ping' }, false],
    ['a notification', { method: 'notifications/progress' }, false],
    ['a large response', { id: 1, result: { text: 'x'.repeat(100_000) } }, true],
    ['a large notification', { method: 'notifications/message', params: { text: 'x'.repeat(100_000) } }, false],
    ['a large response that talks of methods', { id: 1, result: { a: '"method"', text: 'x'.repeat(100_000) } }, true],
  ])('%s', (_, members, expected) => {
    const text = Buffer.from(eventOf({ jsonrpc: '2.0', ...members } as never)).toString();
    expect(isAnswer(whole(text), 1)).toBe(expected);
  });

  test('that is not JSON is no answer', () => {
    expect(isAnswer(whole('data: nonsense\n\n'), 1)).toBe(false);
  });
});

describe('the id of an event', () => {
  test.each([
    ['id: o.AbCdEfGh.1\nevent: message\ndata: {}\n\n', 'o.AbCdEfGh.1'],
    ['id:7\r\ndata: {}\r\n\r\n', '7'],
    ['data: {"id": 3}\n\n', undefined],
    ['data: x\nid: 3\n\n', undefined],
    [': keep-alive\n\n', undefined],
  ])('%j', (text, id) => {
    expect(idOf(whole(text))).toBe(id);
    const [head, tail] = [bytes(text.slice(0, 5)), bytes(text.slice(5))];
    expect(idOf({ parts: [head, tail], bytes: text.length })).toBe(id);
  });
});

test('where the request is not known, any response is the answer, and no question or notification is', () => {
  const is = (message: object) => isAnswer(whole(`data: ${JSON.stringify(message)}\n\n`), undefined);
  expect(is({ jsonrpc: '2.0', id: 5, result: {} })).toBe(true);
  expect(is({ jsonrpc: '2.0', id: 5, error: { code: 1, message: '' } })).toBe(true);
  expect(is({ jsonrpc: '2.0', id: 5, method: 'sampling/createMessage' })).toBe(false);
  expect(is({ jsonrpc: '2.0', method: 'notifications/progress' })).toBe(false);
});
