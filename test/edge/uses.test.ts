import { expect, test } from 'vitest';
import { usesOf } from '../../edge/guard/uses.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

const request = (method: string, params?: Record<string, unknown>): JsonRpcMessage => ({
  jsonrpc: '2.0',
  id: 1,
  method,
  ...(params && { params }),
});

test.each<[string, JsonRpcMessage, string[]]>([
  ['a call', request('tools/call', { name: 'a' }), ['tool a']],
  // A server that turns what it gets into text would find the tool.
  ['a call of a list', request('tools/call', { name: ['a'] }), ['other']],
  ['a prompt', request('prompts/get', { name: 'a' }), ['prompt a']],
  ['reading', request('resources/read', { uri: 'u:a' }), ['resource u:a']],
  ['subscribing', request('resources/subscribe', { uri: 'u:a' }), ['resource u:a']],
  ['no URI', request('resources/read', {}), ['other']],
  ['completion of a prompt', request('completion/complete', { ref: { type: 'ref/prompt', name: 'a' } }), ['prompt a']],
  [
    'completion of a resource',
    request('completion/complete', { ref: { type: 'ref/resource', uri: 'u:{a}' } }),
    ['resource u:{a}'],
  ],
  ['completion of anything else', request('completion/complete', { ref: { type: 'ref/tool', name: 'a' } }), ['other']],
  ['listening', request('subscriptions/listen', { notifications: { toolsListChanged: true } }), ['server']],
  [
    'listening for resources',
    request('subscriptions/listen', { notifications: { resourceSubscriptions: ['u:a', 7] } }),
    ['server', 'resource u:a', 'other'],
  ],
  ['a list', request('tools/list'), ['server']],
  ['initialize', request('initialize'), ['server']],
  ['a method of nobody', request('tools/call/', { name: 'a' }), ['other']],
  ['a notification', { jsonrpc: '2.0', method: 'notifications/initialized' }, ['server']],
  ['a notification of an extension', { jsonrpc: '2.0', method: 'com.example/do' }, ['other']],
  ['an answer', { jsonrpc: '2.0', id: 1, result: {} }, ['server']],
])('%s', (_, message, expected) => {
  expect(usesOf('s', message).map((use) => ('name' in use ? `${use.kind} ${use.name}` : use.kind))).toEqual(expected);
});
