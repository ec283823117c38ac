import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { JsonRpcRequest } from '../../shared/jsonrpc.ts';
import {
  decodeHeaderValue,
  encodeHeaderValue,
  headerClaimsModern,
  headerMismatch,
} from '../../shared/mirrored-headers.ts';
import { META } from '../../shared/rev-2026-07-28.ts';

describe('values', () => {
  test.each([
    ['us-west1', 'us-west1'],
    ['Hello, 世界', '=?base64?SGVsbG8sIOS4lueVjA==?='],
    [' padded ', '=?base64?IHBhZGRlZCA=?='],
    ['line1\nline2', '=?base64?bGluZTEKbGluZTI=?='],
    ['=?base64?literal?=', '=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?='],
    ['', ''],
  ])('%j travels as %j (the examples of the specification)', (value, header) => {
    expect(encodeHeaderValue(value)).toBe(header);
    expect(decodeHeaderValue(header)).toBe(value);
  });

  test('whatever the value, what comes out is what went in, and a header may carry it', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }).filter((text) => text.isWellFormed()),
        (value) => {
          const header = encodeHeaderValue(value);
          expect(() => new Headers({ 'mcp-name': header })).not.toThrow();
          expect(decodeHeaderValue(header)).toBe(value);
        },
      ),
    );
  });

  test.each([
    ['padding left out', '=?base64?SGVsbG8?='],
    ['not base64', '=?base64?!!!!?='],
    ['not UTF-8', '=?base64?//79?='],
    ['other characters', 'caf\u00e9'],
    ['a control character', 'a\u0001b'],
  ])('refused: %s', (_why, header) => {
    expect(decodeHeaderValue(header)).toBeUndefined();
  });

  test('the markers alone overlap: they are a plain value', () => {
    expect(decodeHeaderValue('=?base64?=')).toBe('=?base64?=');
  });
});

const request = (method: string, params: Record<string, unknown> = {}): JsonRpcRequest => ({
  jsonrpc: '2.0',
  id: 1,
  method,
  params: { ...params, _meta: { [META.revision]: '2026-07-28', [META.clientCapabilities]: {} } },
});
const BASE = { 'mcp-protocol-version': '2026-07-28' };

describe('agreement', () => {
  test.each<[string, JsonRpcRequest, Record<string, string>, string | undefined]>([
    ['list', request('tools/list'), { ...BASE, 'mcp-method': 'tools/list' }, undefined],
    [
      'call',
      request('tools/call', { name: 'é' }),
      { ...BASE, 'mcp-method': 'tools/call', 'mcp-name': '=?base64?w6k=?=' },
      undefined,
    ],
    [
      'read',
      request('resources/read', { uri: 'a:b' }),
      { ...BASE, 'mcp-method': 'resources/read', 'mcp-name': ' a:b ' },
      undefined,
    ],
    [
      'a name that the body lacks is for the server to refuse',
      request('tools/call'),
      { ...BASE, 'mcp-method': 'tools/call' },
      undefined,
    ],
    [
      'a task without its name',
      request('tasks/get', { taskId: 't' }),
      { ...BASE, 'mcp-method': 'tasks/get' },
      undefined,
    ],
    [
      'a task with another name',
      request('tasks/get', { taskId: 't' }),
      { ...BASE, 'mcp-method': 'tasks/get', 'mcp-name': 'u' },
      'mcp-name',
    ],
    ['no revision', request('tools/list'), { 'mcp-method': 'tools/list' }, 'mcp-protocol-version'],
    [
      'another revision',
      request('tools/list'),
      { 'mcp-protocol-version': '2025-11-25', 'mcp-method': 'tools/list' },
      'mcp-protocol-version',
    ],
    ['no method', request('tools/list'), BASE, 'mcp-method'],
    ['another method', request('tools/call', { name: 'a' }), { ...BASE, 'mcp-method': 'tools/list' }, 'mcp-method'],
    ['values are case-sensitive', request('tools/list'), { ...BASE, 'mcp-method': 'Tools/List' }, 'mcp-method'],
    ['no name', request('tools/call', { name: 'a' }), { ...BASE, 'mcp-method': 'tools/call' }, 'mcp-name'],
    [
      'another name',
      request('tools/call', { name: 'a' }),
      { ...BASE, 'mcp-method': 'tools/call', 'mcp-name': 'b' },
      'mcp-name',
    ],
    ['a method of Object.prototype', request('constructor'), { ...BASE, 'mcp-method': 'constructor' }, undefined],
  ])('%s', (_what, body, headers, at) => {
    const sent = new Headers(headers);
    const error = headerMismatch(body, (name) => sent.get(name));
    expect(error?.data.header).toBe(at);
    if (error) expect(error.code).toBe('header_mismatch');
  });

  test.each([
    ['2026-07-28', true],
    ['2027-01-01', true],
    ['2025-11-25', false],
    ['draft', false],
    [undefined, false],
  ])('the revision header %s alone claims the era: %s', (value, claims) => {
    expect(headerClaimsModern(() => value)).toBe(claims);
  });
});
