/** What one era says, in the form of the other: tables. */
import { describe, expect, test } from 'vitest';
import { eraOfAnswer } from '../../origin/bridge/eras.ts';
import { initializeResult, legacyNotification, legacyResult, questionOf } from '../../origin/bridge/to-legacy.ts';
import {
  discoverResult,
  inputRequestOf,
  isDeclared,
  legacyRequest,
  modernResult,
  neededFor,
} from '../../origin/bridge/to-modern.ts';
import type { JsonRpcResponse } from '../../shared/jsonrpc.ts';
import { META } from '../../shared/rev-2026-07-28.ts';
import { initialize, modern } from '../support/origin.ts';

const ask = (method: string, params?: Record<string, unknown>) =>
  ({ jsonrpc: '2.0', id: 1, method, ...(params ? { params } : {}) }) as const;

describe('to the era without sessions', () => {
  test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['tools/call', { content: [] }, { content: [], resultType: 'complete' }],
    ['tools/list', { tools: [], nextCursor: 'c' }, { tools: [], nextCursor: 'c', resultType: 'complete' }],
    ['resources/read', { contents: [] }, { contents: [], resultType: 'complete', ttlMs: 0, cacheScope: 'private' }],
    ['tools/list', { ttlMs: 5, cacheScope: 'public' }, { ttlMs: 5, cacheScope: 'public', resultType: 'complete' }],
    ['x', { resultType: 'theirs', more: 1 }, { resultType: 'complete', more: 1 }],
    ['x', { _meta: { a: 1 } }, { _meta: { a: 1 }, resultType: 'complete' }],
  ])('%s %j', (method, result, expected) => {
    expect(modernResult(method, result, undefined)).toEqual(expected);
  });

  test('a server is named in every result, in its own words where it has some', () => {
    expect(modernResult('x', {}, { name: 's' })).toMatchObject({ _meta: { [META.serverInfo]: { name: 's' } } });
    expect(modernResult('x', { _meta: { [META.serverInfo]: 'own' } }, { name: 's' })).toMatchObject({
      _meta: { [META.serverInfo]: 'own' },
    });
  });

  test('discovery keeps capabilities of the future and leaves experimental tasks out', () => {
    const discovered = discoverResult({
      capabilities: { tools: {}, tasks: {}, future: { a: 1 } },
      instructions: 'i',
      serverInfo: { name: 's' },
    });
    expect(discovered).toMatchObject({
      capabilities: { tools: {}, future: { a: 1 } },
      instructions: 'i',
      supportedVersions: ['2026-07-28'],
    });
    expect(discovered).not.toHaveProperty('capabilities.tasks');
  });

  test('a request loses its envelope and nothing else', () => {
    const sent = modern(
      1,
      'tools/call',
      { name: 'n', requestState: 's', inputResponses: {}, future: 1 },
      {},
      { progressToken: 1, baggage: 'b' },
    );
    expect(legacyRequest(sent as never).params).toEqual({
      name: 'n',
      future: 1,
      _meta: { progressToken: 1, baggage: 'b' },
    });
    expect(legacyRequest(modern(1, 'tools/list') as never).params).toEqual({});
  });

  test.each<[ReturnType<typeof ask>, Record<string, unknown>, boolean | undefined]>([
    [ask('roots/list'), { roots: {} }, true],
    [ask('roots/list'), {}, false],
    [ask('sampling/createMessage', {}), { sampling: {} }, true],
    [ask('sampling/createMessage', { tools: [] }), { sampling: {} }, false],
    [ask('sampling/createMessage', { tools: [] }), { sampling: { tools: {} } }, true],
    [ask('elicitation/create', {}), { elicitation: {} }, true],
    [ask('elicitation/create', {}), { elicitation: { url: {} } }, false],
    [ask('elicitation/create', { mode: 'url' }), { elicitation: {} }, false],
    [ask('elicitation/create', { mode: 'url' }), { elicitation: { url: {} } }, true],
    [ask('elicitation/create', {}), { elicitation: 'yes' }, false],
    [ask('tasks/get', {}), { tasks: {} }, undefined],
  ])('%j may be asked of a client that declared %j: %s', (question, declared, may) => {
    const needed = neededFor(question);
    expect(needed && isDeclared(needed, declared)).toBe(may);
  });

  test('a question keeps what the client needs', () => {
    const params = { mode: 'url', url: 'u', message: 'm', elicitationId: 'e', task: {}, _meta: { progressToken: 1 } };
    expect(inputRequestOf(ask('elicitation/create', params))).toEqual({
      method: 'elicitation/create',
      params: { mode: 'url', url: 'u', message: 'm' },
    });
    expect(inputRequestOf(ask('roots/list'))).toEqual({ method: 'roots/list' });
  });
});

describe('to the era with sessions', () => {
  test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['ping', { resultType: 'complete' }, {}],
    [
      'tools/list',
      { resultType: 'complete', ttlMs: 1, cacheScope: 'public', tools: [], _meta: { a: 1 } },
      { tools: [], _meta: { a: 1 } },
    ],
    ['tools/call', { structuredContent: { a: 1 } }, { structuredContent: { a: 1 } }],
    ['tools/call', { structuredContent: null }, { structuredContent: { result: null } }],
    ['tools/call', { structuredContent: 'x' }, { structuredContent: { result: 'x' } }],
    [
      'tools/list',
      { tools: [{ name: 'n', outputSchema: { type: 'object' } }, 'odd'] },
      { tools: [{ name: 'n', outputSchema: { type: 'object' } }, 'odd'] },
    ],
    [
      'tools/list',
      { tools: [{ name: 'n', outputSchema: { type: 'array', items: { $ref: '#/$defs/a' } } }] },
      { tools: [{ name: 'n' }] },
    ],
  ])('%s %j', (method, result, expected) => {
    expect(legacyResult(method, result)).toEqual(expected);
  });

  test('initialize: the revision that was asked for where it exists, a name where the server has none', () => {
    expect(initializeResult('s', initialize({}, '2025-06-18') as never, { capabilities: { tools: {} } })).toEqual({
      protocolVersion: '2025-06-18',
      capabilities: { tools: {} },
      serverInfo: { name: 's', version: '0' },
    });
  });

  test('a notification loses its subscription, a question gains the id that older clients need', () => {
    const said = {
      jsonrpc: '2.0',
      method: 'notifications/resources/updated',
      params: { uri: 'u', _meta: { [META.subscriptionId]: 1, a: 1 } },
    } as const;
    expect(legacyNotification(said)).toEqual({
      jsonrpc: '2.0',
      method: said.method,
      params: { uri: 'u', _meta: { a: 1 } },
    });
    expect(questionOf('q', { method: 'elicitation/create', params: { mode: 'url' } })?.params).toEqual({
      mode: 'url',
      elicitationId: 'q',
    });
    expect(questionOf('q', { method: 'roots/list' })).toEqual({ jsonrpc: '2.0', id: 'q', method: 'roots/list' });
    for (const odd of [undefined, 1, {}, { method: 7 }]) expect(questionOf('q', odd)).toBeUndefined();
  });
});

describe('the era that an answer to the probe shows', () => {
  const answer = (more: object): JsonRpcResponse => ({ jsonrpc: '2.0', id: 1, ...more }) as JsonRpcResponse;
  const error = (code: number, data?: unknown) => answer({ error: { code, message: 'm', data } });
  test.each<[JsonRpcResponse, 'modern' | 'legacy']>([
    [answer({ result: { supportedVersions: ['2026-07-28', '2027-01-01'] } }), 'modern'],
    [answer({ result: { supportedVersions: ['2027-01-01'] } }), 'legacy'],
    [answer({ result: { supportedVersions: '2026-07-28' } }), 'legacy'],
    [answer({ result: {} }), 'legacy'],
    [error(-32022, { supported: ['2026-07-28'] }), 'modern'],
    [error(-32022, { supported: ['2025-11-25'] }), 'legacy'],
    [error(-32022), 'legacy'],
    [error(-32601), 'legacy'],
    [error(-32602, { supported: ['2026-07-28'] }), 'legacy'],
    [error(0), 'legacy'],
  ])('%j: %s', (given, era) => {
    expect(eraOfAnswer(given)).toBe(era);
  });
});
