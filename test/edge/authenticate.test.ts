import { describe, expect, test } from 'vitest';
import { authenticate, checkOrigin } from '../../edge/authenticate.ts';
import { accepts } from '../../edge/read-message.ts';

describe('loopback mode', () => {
  const attempt = (url: string, headers: Record<string, string> = {}, mode: string | undefined = 'loopback') => {
    try {
      return authenticate(mode, new URL(url), new Headers(headers)).subject;
    } catch (thrown) {
      return (thrown as { code: string }).code;
    }
  };

  test.each([
    ['http://localhost:8787/', {}, 'anonymous'],
    ['http://127.0.0.1/', {}, 'anonymous'],
    ['http://[::1]:1/', {}, 'anonymous'],
    ['http://127.0.0.1/', { 'x-forwarded-for': '127.0.0.1' }, 'anonymous'],
    ['http://mcp.example.com/', {}, 'authentication_required'],
    ['http://localhost.example.com/', {}, 'authentication_required'],
    ['http://127.0.0.1.example.com/', {}, 'authentication_required'],
    ['http://10.0.0.1/', {}, 'authentication_required'],
    // A tunnel that rewrites Host to localhost still says whom it speaks for.
    ['http://localhost/', { 'cf-connecting-ip': '203.0.113.9' }, 'authentication_required'],
    ['http://localhost/', { 'x-forwarded-for': '203.0.113.9, 127.0.0.1' }, 'authentication_required'],
    ['http://localhost/', { forwarded: 'for=203.0.113.9' }, 'authentication_required'],
  ])('%s %j is %s', (url, headers, expected) => {
    expect(attempt(url, headers as Record<string, string>)).toBe(expected);
  });

  test.each([undefined, '', 'none', 'LOOPBACK'])('mode %j lets nobody in', (mode) => {
    expect(() => authenticate(mode, new URL('http://localhost/'), new Headers())).toThrow('lets nobody in');
  });
});

test.each([
  [null, true],
  ['http://localhost:6274', true],
  ['https://127.0.0.1', true],
  ['http://[::1]:3000', true],
  ['null', false],
  ['https://evil.example', false],
  ['http://localhost.evil.example', false],
  ['file://localhost', false],
  ['not a url', false],
])('Origin %s: %s', (origin, allowed) => {
  if (allowed) expect(() => checkOrigin(origin)).not.toThrow();
  else expect(() => checkOrigin(origin)).toThrow(/Origin/);
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
