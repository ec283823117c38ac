import { describe, expect, test } from 'vitest';
import { readBatch } from '../../edge/transports/batch.ts';

const ping = { jsonrpc: '2.0', id: 1, method: 'ping' };
const claim = { _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28' } };

describe('a batch', () => {
  test.each([[null], ['2025-03-26'], [' 2025-03-26 ']])('is read under version header %j', (revision) => {
    expect(readBatch([ping, { jsonrpc: '2.0', method: 'x' }], revision)).toHaveLength(2);
  });

  test.each<[string, unknown[], string | null]>([
    ['of a later revision', [ping], '2025-06-18'],
    ['of an earlier revision', [ping], '2024-11-05'],
    ['of nothing', [], null],
    ['of too many', Array.from({ length: 101 }, () => ping), null],
    ['with an initialize', [ping, { ...ping, method: 'initialize' }], null],
    ['with a message of the stateless era', [ping, { ...ping, params: claim }], null],
    ['within a batch', [[ping]], null],
    ['of no messages', [1], null],
  ])('%s is refused', (_, values, revision) => {
    expect(() => readBatch(values, revision)).toThrow(expect.objectContaining({ code: 'invalid_request' }));
  });
});
