import { describe, expect, test } from 'vitest';
import { checkModern, isModern } from '../../edge/modern/classify.ts';
import { MoorageError } from '../../shared/errors.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

const REVISION = '2026-07-28';
const meta = (over: Record<string, unknown> = {}) => ({
  'io.modelcontextprotocol/protocolVersion': REVISION,
  'io.modelcontextprotocol/clientCapabilities': {},
  ...over,
});
const request = (method: string, params?: Record<string, unknown>): JsonRpcMessage => ({
  jsonrpc: '2.0',
  id: 1,
  method,
  ...(params && { params }),
});
const enveloped = (method: string, params: Record<string, unknown> = {}, over: Record<string, unknown> = {}) =>
  request(method, { ...params, _meta: meta(over) });
const reader = (headers: Record<string, string>) => {
  const read = new Headers(headers);
  return (name: string) => read.get(name);
};
const headersFor = (method: string, over: Record<string, string> = {}) => ({
  'MCP-Protocol-Version': REVISION,
  'Mcp-Method': method,
  ...over,
});

describe('the era', () => {
  test.each<[string, boolean, JsonRpcMessage, Record<string, string>]>([
    ['a claim, whatever the headers say', true, enveloped('tools/list'), {}],
    ['a claim of a revision that nobody knows', true, enveloped('x', {}, meta()), { 'mcp-protocol-version': '1' }],
    ['initialize', false, request('initialize', {}), {}],
    [
      'initialize under the version header of a session',
      false,
      request('initialize', {}),
      { 'mcp-protocol-version': '2025-11-25' },
    ],
    ['initialize under any version header', false, request('initialize', {}), { 'mcp-protocol-version': REVISION }],
    ['initialize with a claim', true, enveloped('initialize'), {}],
    ['no claim and no header', false, request('tools/list'), {}],
    ['no claim and a header of the stateless era', true, request('tools/list'), { 'mcp-protocol-version': REVISION }],
    ['a header of a later revision', true, request('tools/list'), { 'mcp-protocol-version': '2027-01-01' }],
    ['a header that is no revision', false, request('tools/list'), { 'mcp-protocol-version': 'v999.0.0' }],
    ['server/discover without a claim', true, request('server/discover'), {}],
    ['a notification of a session', false, { jsonrpc: '2.0', method: 'notifications/cancelled' }, {}],
    ['a response of a session', false, { jsonrpc: '2.0', id: 1, result: {} }, {}],
  ])('%s: modern is %s', (_, modern, message, headers) => {
    expect(isModern(message, reader(headers))).toBe(modern);
  });
});

describe('a request of the stateless era', () => {
  const without = (key: string) => {
    const kept = meta();
    delete (kept as Record<string, unknown>)[`io.modelcontextprotocol/${key}`];
    return request('tools/list', { _meta: kept });
  };
  test.each<[string, JsonRpcMessage, Record<string, string>, string]>([
    ['no _meta', request('tools/list', {}), headersFor('tools/list'), 'envelope_invalid'],
    ['no params', request('tools/list'), headersFor('tools/list'), 'envelope_invalid'],
    ['no params, and no other header', request('tools/list'), { 'MCP-Protocol-Version': REVISION }, 'envelope_invalid'],
    ['no protocolVersion', without('protocolVersion'), headersFor('tools/list'), 'envelope_invalid'],
    ['no clientCapabilities', without('clientCapabilities'), headersFor('tools/list'), 'envelope_invalid'],
    [
      'capabilities of another type',
      enveloped('tools/list', {}, { 'io.modelcontextprotocol/clientCapabilities': 1 }),
      headersFor('tools/list'),
      'envelope_invalid',
    ],
    [
      'a version that nobody knows, in header and body',
      enveloped('tools/list', {}, { 'io.modelcontextprotocol/protocolVersion': 'v999.0.0' }),
      headersFor('tools/list', { 'MCP-Protocol-Version': 'v999.0.0' }),
      'unsupported_protocol_version',
    ],
    [
      'a version of a session, as a claim',
      enveloped('tools/list', {}, { 'io.modelcontextprotocol/protocolVersion': '2025-11-25' }),
      headersFor('tools/list', { 'MCP-Protocol-Version': '2025-11-25' }),
      'unsupported_protocol_version',
    ],
    [
      'a body that names another version than the header',
      enveloped('tools/list', {}, { 'io.modelcontextprotocol/protocolVersion': 'v999.0.0' }),
      headersFor('tools/list'),
      'header_mismatch',
    ],
    ['no version header', enveloped('tools/list'), { 'Mcp-Method': 'tools/list' }, 'header_mismatch'],
    ['no method header', enveloped('tools/list'), { 'MCP-Protocol-Version': REVISION }, 'header_mismatch'],
    ['another method in the header', enveloped('tools/list'), headersFor('tools/call'), 'header_mismatch'],
    ['the method in another case', enveloped('tools/list'), headersFor('Tools/List'), 'header_mismatch'],
    ['no name header', enveloped('tools/call', { name: 'a' }), headersFor('tools/call'), 'header_mismatch'],
    [
      'another name in the header',
      enveloped('tools/call', { name: 'a' }),
      headersFor('tools/call', { 'Mcp-Name': 'b' }),
      'header_mismatch',
    ],
    [
      'a name header of bad base64',
      enveloped('tools/call', { name: 'a' }),
      headersFor('tools/call', { 'Mcp-Name': '=?base64?%%%?=' }),
      'header_mismatch',
    ],
    ['initialize with a claim', enveloped('initialize'), headersFor('initialize'), 'method_not_found'],
    ['ping', enveloped('ping'), headersFor('ping'), 'method_not_found'],
    ['logging/setLevel', enveloped('logging/setLevel'), headersFor('logging/setLevel'), 'method_not_found'],
    ['resources/subscribe', enveloped('resources/subscribe'), headersFor('resources/subscribe'), 'method_not_found'],
    [
      'resources/unsubscribe',
      enveloped('resources/unsubscribe'),
      headersFor('resources/unsubscribe'),
      'method_not_found',
    ],
    ['a response', { jsonrpc: '2.0', id: 1, result: {} }, headersFor('x'), 'invalid_request'],
    [
      'a notification of a version that nobody knows',
      { jsonrpc: '2.0', method: 'notifications/x' },
      { 'MCP-Protocol-Version': '2099-01-01' },
      'unsupported_protocol_version',
    ],
  ])('%s is refused', (_, message, headers, code) => {
    const refusal = () => checkModern(message, reader(headers));
    expect(refusal).toThrow(MoorageError);
    expect(refusal).toThrow(expect.objectContaining({ code }));
  });

  test.each<[string, JsonRpcMessage, Record<string, string>]>([
    ['without clientInfo', enveloped('tools/list'), headersFor('tools/list')],
    [
      'header names in any case',
      enveloped('tools/list'),
      { 'mcp-PROTOCOL-version': REVISION, 'MCP-METHOD': 'tools/list' },
    ],
    [
      'spaces around values',
      enveloped('tools/list'),
      { 'mcp-protocol-version': ` ${REVISION} `, 'mcp-method': 'tools/list ' },
    ],
    ['a method of the future', enveloped('stars/count'), headersFor('stars/count')],
    [
      'a name in base64',
      enveloped('tools/call', { name: 'größe' }),
      headersFor('tools/call', { 'Mcp-Name': '=?base64?Z3LDtsOfZQ==?=' }),
    ],
    [
      'headers of arguments, which are judged where the schema is known',
      enveloped('tools/call', { name: 'a' }),
      headersFor('tools/call', { 'Mcp-Name': 'a', 'Mcp-Param-X': '=?base64?%?=' }),
    ],
  ])('%s passes', (_, message, headers) => {
    expect(checkModern(message, reader(headers))).toMatchObject({ request: message, envelope: { revision: REVISION } });
  });

  test('a notification is taken and goes nowhere', () => {
    expect(checkModern({ jsonrpc: '2.0', method: 'notifications/x' }, reader(headersFor('x')))).toBeUndefined();
  });
});
