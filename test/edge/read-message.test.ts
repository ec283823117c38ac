import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkModern, isModern } from '../../edge/modern/classify.ts';
import { isDeeperThan, MAX_DEPTH, readPost } from '../../edge/read-message.ts';
import { readBatch } from '../../edge/transports/batch.ts';
import { MoorageError } from '../../shared/errors.ts';
import { parseMessage } from '../../shared/jsonrpc.ts';

const bytesOf = (text: string) => new TextEncoder().encode(text);
const posted = (body: Uint8Array | string, headers: Record<string, string> = {}) =>
  new Request('http://localhost/x/mcp', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: '*/*', ...headers },
    body: body as Uint8Array<ArrayBuffer>,
  });
const readMessage = async (request: Request) => ({ message: parseMessage((await readPost(request)).value) });
/** The code of the refusal, or nothing; anything else that is thrown fails the test. */
async function refusalOf(work: () => unknown): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (thrown) {
    if (!(thrown instanceof MoorageError)) throw thrown;
    return thrown.code;
  }
}

describe('depth', () => {
  test.each([
    ['[]', 1],
    ['{"a":[{}]}', 3],
    ['"[[[["', 0],
    ['{"a\\"[[":"]]\\\\"}', 1],
    ['[[],[],[[]]]', 3],
  ])('%s has %i levels', (json, depth) => {
    expect(isDeeperThan(bytesOf(json), depth)).toBe(false);
    if (depth > 0) expect(isDeeperThan(bytesOf(json), depth - 1)).toBe(true);
  });

  test('is what walking the value finds', () => {
    const depthOf = (value: unknown): number =>
      value !== null && typeof value === 'object' ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0;
    fc.assert(
      fc.property(fc.json({ maxDepth: 8 }), (json) => {
        const depth = depthOf(JSON.parse(json));
        return !isDeeperThan(bytesOf(json), depth) && (depth === 0 || isDeeperThan(bytesOf(json), depth - 1));
      }),
    );
  });
});

describe('a body', () => {
  test.each([
    ['levels beyond the bound', '['.repeat(MAX_DEPTH + 1) + ']'.repeat(MAX_DEPTH + 1), 'invalid_request'],
    ['a million levels that never end', '['.repeat(1_000_000), 'invalid_request'],
    ['nothing', '', 'parse_error'],
    ['two values', '{}{}', 'parse_error'],
    ['a number', '1', 'invalid_request'],
    ['null', 'null', 'invalid_request'],
    ['an id that is an object', '{"jsonrpc":"2.0","id":{},"method":"x"}', 'invalid_request'],
    ['params that are a list', '{"jsonrpc":"2.0","id":1,"method":"x","params":[]}', 'invalid_request'],
    ['a method of great length', `{"jsonrpc":"2.0","id":1,"method":"${'x'.repeat(300)}"}`, 'invalid_request'],
    ['an overlong encoding', new Uint8Array([0x22, 0xc0, 0xaf, 0x22]), 'parse_error'],
    ['a lone half of a surrogate pair', new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22]), 'parse_error'],
  ])('with %s', async (_, body, code) => {
    expect(await refusalOf(() => readMessage(posted(body)))).toBe(code);
  });

  test.each([
    ['application/json; charset=utf-8', undefined],
    ['APPLICATION/JSON', undefined],
    ['application/json-rpc', 'unsupported_media_type'],
    ['text/plain, application/json', 'unsupported_media_type'],
    ['', 'unsupported_media_type'],
  ])('of type "%s"', async (type, code) => {
    const body = '{"jsonrpc":"2.0","method":"x"}';
    expect(await refusalOf(() => readMessage(posted(body, { 'content-type': type })))).toBe(code);
  });

  test('of a key that is there twice: the last one counts, as it does for whoever parses it next', async () => {
    const { message } = await readMessage(posted('{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}'));
    expect(message).toMatchObject({ method: 'tools/call' });
  });

  test('of a key "__proto__" changes no prototype', async () => {
    const text = '{"jsonrpc":"2.0","id":1,"method":"x","__proto__":{"a":1},"params":{"__proto__":{"b":1}}}';
    const { message } = await readMessage(posted(text));
    expect(({} as Record<string, unknown>).a).toBeUndefined();
    expect(Object.getPrototypeOf(message)).toBe(Object.prototype);
    expect((message as { params: Record<string, unknown> }).params.b).toBeUndefined();
  });
});

describe('whatever comes', () => {
  const header = fc.option(fc.constantFrom('2026-07-28', '2025-03-26', 'v999.0.0', '=?base64?%?=', ''), { nil: null });
  const member = fc.constantFrom('jsonrpc', 'id', 'method', 'params', '_meta', 'result', 'error', '__proto__', 'name');
  const almost = fc.dictionary(
    member,
    fc.oneof(
      fc.constantFrom<unknown>('2.0', 1, null, 'tools/call', 'initialize', 'server/discover'),
      fc.jsonValue({ maxDepth: 3 }),
      fc.record({ _meta: fc.dictionary(fc.constant('io.modelcontextprotocol/protocolVersion'), fc.jsonValue()) }),
    ),
  );

  test('bytes are a message or a refusal', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        expect(await refusalOf(() => readMessage(posted(bytes)))).toMatch(/^(parse_error|invalid_request)$/);
      }),
      { numRuns: 300 },
    );
  });

  test('what nearly is a message is judged, and nothing breaks', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(almost, fc.array(almost, { maxLength: 4 })), header, async (value, revision) => {
        const code = await refusalOf(async () => {
          const { value: read } = await readPost(posted(JSON.stringify(value)));
          if (Array.isArray(read)) return readBatch(read, revision);
          const { message } = await readMessage(posted(JSON.stringify(value)));
          const reader = () => revision;
          return isModern(message, reader) ? checkModern(message, reader) : message;
        });
        expect(code ?? 'invalid_request').toMatch(
          /^(invalid_request|header_mismatch|envelope_invalid|unsupported_protocol_version|method_not_found)$/,
        );
      }),
      { numRuns: 1000 },
    );
  });
});
