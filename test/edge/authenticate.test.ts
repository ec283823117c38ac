import { describe, expect, test } from 'vitest';
import { checkHost, checkOrigin } from '../../edge/auth/browser.ts';
import { identify } from '../../edge/auth/identify.ts';
import { ADMINISTRATION, ALL_SERVERS, type Resource, serverResource } from '../../edge/auth/resource.ts';
import { accepts } from '../../edge/read-message.ts';
import type { Settings } from '../../edge/settings.ts';
import type { MoorageError } from '../../shared/errors.ts';

const edge = (settings: Settings): Settings => settings;
const refusal = async (attempt: Promise<unknown> | (() => unknown)): Promise<MoorageError> => {
  try {
    await (typeof attempt === 'function' ? attempt() : attempt);
  } catch (thrown) {
    return thrown as MoorageError;
  }
  throw new Error('nothing was refused');
};

const nobody = { find: () => Promise.resolve(null) };
const authenticate = (request: Request, settings: Settings, resource: Resource) =>
  identify({
    request,
    settings,
    resource,
    tokens: nobody,
    validateLogin: () => Promise.resolve(null),
    fetchText: () => Promise.reject(new Error('nothing is fetched')),
    certificate: undefined,
  });

describe('loopback', () => {
  const attempt = async (url: string, headers: Record<string, string> = {}, auth: string | undefined = 'loopback') => {
    const request = new Request(url, { headers });
    const env = edge(auth === undefined ? {} : { MOORAGE_AUTH: auth });
    return await authenticate(request, env, ALL_SERVERS).then(
      ({ subject }) => subject,
      ({ code }: MoorageError) => code,
    );
  };

  test.each([
    ['http://localhost:8787/', {}, 'anonymous'],
    ['http://127.0.0.1/', {}, 'anonymous'],
    ['http://[::1]:1/', {}, 'anonymous'],
    ['http://127.0.0.1/', { 'x-forwarded-for': '127.0.0.1' }, 'anonymous'],
    // A token that nobody asked for changes nothing where none is needed.
    ['http://127.0.0.1/', { authorization: 'Bearer whatever' }, 'anonymous'],
    ['http://mcp.example.com/', {}, 'authentication_required'],
    ['http://localhost.example.com/', {}, 'authentication_required'],
    ['http://127.0.0.1.example.com/', {}, 'authentication_required'],
    ['http://10.0.0.1/', {}, 'authentication_required'],
    // A tunnel that rewrites Host to localhost still says whom it speaks for.
    ['http://localhost/', { 'cf-connecting-ip': '203.0.113.9' }, 'authentication_required'],
    ['http://localhost/', { 'x-forwarded-for': '203.0.113.9, 127.0.0.1' }, 'authentication_required'],
    ['http://localhost/', { forwarded: 'for=203.0.113.9' }, 'authentication_required'],
    ['http://localhost/?access_token=x', {}, 'invalid_request'],
  ])('%s %j is %s', async (url, headers, expected) => {
    expect(await attempt(url, headers as Record<string, string>)).toBe(expected);
  });

  test.each([undefined, ''])('%j lets nobody in', async (auth) => {
    const env = edge(auth === undefined ? {} : { MOORAGE_AUTH: auth });
    const { message } = await refusal(authenticate(new Request('http://localhost/'), env, ALL_SERVERS));
    expect(message).toContain('lets nobody in');
  });

  test.each(['none', 'LOOPBACK', '{"loopbak":true}', '[]'])('%j is malformed and lets nobody in', async (auth) => {
    expect(await attempt('http://localhost/', {}, auth)).toBe('internal');
  });

  test('is not enough to administer', async () => {
    const request = new Request('http://localhost/admin/api/whoami');
    const error = await refusal(authenticate(request, edge({ MOORAGE_AUTH: 'loopback' }), ADMINISTRATION));
    expect(error.code).toBe('insufficient_scope');
    expect(error.data.scope).toBe('mcp admin');
  });
});

test('a refusal tells where to learn how to get a token, and which', async () => {
  const env = edge({ MOORAGE_AUTH: '{"tokens":true}', MOORAGE_PUBLIC_URL: 'https://mcp.example.com/' });
  const request = new Request('http://10.0.0.1/notes/mcp', { headers: { authorization: 'Bearer x.y.z' } });
  expect((await refusal(authenticate(request, env, serverResource('notes')))).data).toEqual({
    error: 'invalid_token',
    resource_metadata: 'https://mcp.example.com/.well-known/oauth-protected-resource/notes/mcp',
    scope: 'server:notes',
  });
});

const PUBLIC = edge({
  MOORAGE_PUBLIC_URL: 'https://mcp.example.com',
  MOORAGE_HOSTS: '["10.0.0.1"]',
  MOORAGE_ALLOWED_ORIGINS: '["https://app.example.com"]',
});
const code = async (check: () => unknown) => {
  try {
    check();
    return 'taken';
  } catch (thrown) {
    return (thrown as MoorageError).code;
  }
};

test.each([
  [{}, 'http://localhost', null, 'taken'],
  [{}, 'http://localhost', 'http://localhost:6274', 'taken'],
  [{}, 'http://localhost', 'https://127.0.0.1', 'taken'],
  [{}, 'http://localhost', 'http://[::1]:3000', 'taken'],
  [{}, 'http://localhost', 'null', 'forbidden_origin'],
  [{}, 'http://localhost', 'https://evil.example', 'forbidden_origin'],
  [{}, 'http://localhost', 'http://localhost.evil.example', 'forbidden_origin'],
  [{}, 'http://localhost', 'file://localhost', 'forbidden_origin'],
  [{}, 'http://localhost', 'not a url', 'forbidden_origin'],
  [PUBLIC, 'https://mcp.example.com', 'https://app.example.com', 'taken'],
  [PUBLIC, 'https://mcp.example.com', 'https://mcp.example.com', 'taken'],
  [PUBLIC, 'https://mcp.example.com', 'http://mcp.example.com', 'forbidden_origin'],
  [PUBLIC, 'https://mcp.example.com', 'https://app.example.com.evil.example', 'forbidden_origin'],
  [PUBLIC, 'https://mcp.example.com', 'https://app.example.com:8443', 'forbidden_origin'],
  // A page of the caller's own host is no page of an edge elsewhere.
  [PUBLIC, 'https://mcp.example.com', 'http://localhost:6274', 'forbidden_origin'],
])('%j at %s: Origin %s is %s', async (env, url, origin, expected) => {
  expect(await code(() => checkOrigin(env as Settings, new URL(url), origin))).toBe(expected);
});

test.each([
  [{}, 'http://localhost:1', 'taken'],
  [{}, 'http://[::1]', 'taken'],
  [{}, 'http://rebound.evil.example', 'forbidden_origin'],
  [{}, 'http://10.0.0.1', 'forbidden_origin'],
  [PUBLIC, 'https://mcp.example.com:8443', 'taken'],
  [PUBLIC, 'http://10.0.0.1', 'taken'],
  [PUBLIC, 'https://mcp.example.com.evil.example', 'forbidden_origin'],
])('%j: Host of %s is %s', async (env, url, expected) => {
  expect(await code(() => checkHost(env as Settings, new URL(url)))).toBe(expected);
});

test.each([
  [null, true],
  ['*/*', true],
  ['application/json, text/event-stream', true],
  ['text/event-stream;q=0.9,APPLICATION/JSON ; charset=utf-8', true],
  ['application/*, text/*', true],
  ['application/json', false],
  ['text/event-stream', false],
  ['text/html', false],
  ['', false],
])('Accept: %s admits both: %s', (header, expected) => {
  expect(accepts(header, ['application/json', 'text/event-stream'])).toBe(expected);
});
