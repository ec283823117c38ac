import { describe, expect, test } from 'vitest';
import { type ErrorCode, httpStatus, MoorageError, toJsonRpcError } from '../../shared/errors.ts';
import {
  CACHEABLE_METHODS,
  capabilityRequired,
  claimsModern,
  INPUT_METHODS,
  META,
  MODERN_METHODS,
  methodNotFound,
  modernStatus,
  parseEnvelope,
  REMOVED_METHODS,
} from '../../shared/rev-2026-07-28.ts';

const VALID = { [META.revision]: '2026-07-28', [META.clientCapabilities]: {} };
const refusal = (meta: unknown) => {
  try {
    parseEnvelope({ _meta: meta });
    return undefined;
  } catch (error) {
    return error instanceof MoorageError ? { code: error.code, data: error.data } : error;
  }
};

describe('envelope', () => {
  test('what it says is read and everything else is kept', () => {
    const meta = {
      ...VALID,
      [META.clientCapabilities]: { elicitation: {}, future: { a: 1 } },
      [META.logLevel]: 'warning',
      [META.clientInfo]: { name: 'c', version: '1', title: 'C' },
      traceparent: '00-1',
      progressToken: 7,
    };
    const envelope = parseEnvelope({ _meta: meta });
    expect(envelope).toMatchObject({ capabilities: { elicitation: {}, future: { a: 1 } }, logLevel: 'warning' });
    expect(envelope.meta).toEqual(meta);
  });

  test.each<[string, unknown, ErrorCode, string | undefined]>([
    ['nothing', undefined, 'envelope_invalid', META.revision],
    ['an array', [], 'envelope_invalid', META.revision],
    ['no capabilities', { [META.revision]: '2026-07-28' }, 'envelope_invalid', META.clientCapabilities],
    [
      'capabilities of another type',
      { ...VALID, [META.clientCapabilities]: [] },
      'envelope_invalid',
      META.clientCapabilities,
    ],
    [
      'a client without a version',
      { ...VALID, [META.clientInfo]: { name: 'c' } },
      'envelope_invalid',
      `${META.clientInfo}.version`,
    ],
    ['an unknown log level', { ...VALID, [META.logLevel]: 'loud' }, 'envelope_invalid', META.logLevel],
    ['another revision', { ...VALID, [META.revision]: '1900-01-01' }, 'unsupported_protocol_version', undefined],
  ])('refused: %s', (_what, meta, code, key) => {
    expect(refusal(meta)).toMatchObject({ code, data: key === undefined ? {} : { key } });
  });

  test('a claim is the presence of the key, whatever its value', () => {
    expect(claimsModern({ _meta: { [META.revision]: 7 } })).toBe(true);
    expect(claimsModern({ _meta: { progressToken: 1 } })).toBe(false);
    expect(claimsModern({ _meta: 'x' })).toBe(false);
    expect(claimsModern(undefined)).toBe(false);
  });
});

test('methods: those that may be cached or asked back exist, and none that was removed does', () => {
  for (const method of [...CACHEABLE_METHODS, ...INPUT_METHODS]) expect(MODERN_METHODS.has(method)).toBe(true);
  for (const method of REMOVED_METHODS) expect(MODERN_METHODS.has(method)).toBe(false);
});

test.each<[ErrorCode, number, number]>([
  ['header_mismatch', 400, -32020],
  ['capability_required', 400, -32021],
  ['unsupported_protocol_version', 400, -32022],
  ['envelope_invalid', 400, -32602],
  ['method_not_found', 404, -32601],
])('%s is HTTP %i and JSON-RPC %i', (code, http, jsonrpc) => {
  expect(httpStatus(code)).toBe(http);
  expect(toJsonRpcError(new MoorageError(code, '')).code).toBe(jsonrpc);
  if (code !== 'envelope_invalid') expect(modernStatus(jsonrpc)).toBe(http);
});

test('errors name what the client needs; a handler’s own failure stays in band', () => {
  expect(capabilityRequired({ elicitation: { url: {} } })).toMatchObject({
    data: { requiredCapabilities: { elicitation: { url: {} } } },
  });
  expect(refusal({ ...VALID, [META.revision]: '1900-01-01' })).toMatchObject({
    data: { supported: ['2026-07-28'], requested: '1900-01-01' },
  });
  expect(methodNotFound('ping').code).toBe('method_not_found');
  expect([-32602, -32603, -32000, 1].map(modernStatus)).toEqual([200, 200, 200, 200]);
});
