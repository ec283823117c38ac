/** What the edge fetches for others, and what it will not. */
import { describe, expect, test } from 'vitest';
import { fetchPublic, isPublic } from '../../edge/auth/fetch-public.ts';

test.each([
  ['https://id.example.com/keys', true],
  ['https://id.example.com:8443/keys', true],
  ['https://93.184.216.34/', true],
  ['http://id.example.com/', false],
  ['https://user:secret@id.example.com/', false],
  ['https://localhost/', false],
  ['https://127.0.0.1/', false],
  ['https://0x7f.1/', false],
  ['https://2130706433/', false],
  ['https://0/', false],
  ['https://10.0.0.1/', false],
  ['https://172.16.9.1/', false],
  ['https://192.168.1.1/', false],
  ['https://169.254.169.254/latest/meta-data', false],
  ['https://100.64.0.1/', false],
  ['https://224.0.0.1/', false],
  ['https://[::1]/', false],
  ['https://[::ffff:10.0.0.1]/', false],
  ['https://[fd00::1]/', false],
  ['https://[fe80::1]/', false],
  ['https://intranet/', false],
  ['https://metadata.google.internal/', false],
  ['https://printer.local/', false],
  ['https://LOCALHOST./', false],
  ['file:///etc/passwd', false],
])('%s: %s', (address, expected) => {
  expect(isPublic(new URL(address))).toBe(expected);
});

describe('fetching', () => {
  const answering = (response: Response) => ({ fetch: () => Promise.resolve(response) });
  const url = 'https://id.example.com/keys';

  test('gives the text', async () => {
    expect(await fetchPublic(url, answering(new Response('{}')))).toBe('{}');
  });

  test.each([
    ['a redirect', new Response(null, { status: 302, headers: { location: 'https://10.0.0.1/' } }), /status 302/],
    ['a failure', new Response('no', { status: 500 }), /status 500/],
    ['an endless answer', new Response(new Uint8Array(300_000)), /too large/],
  ])('%s is none', async (_, response, why) => {
    await expect(fetchPublic(url, answering(response))).rejects.toThrow(why);
  });

  test('loopback is reached by its own way alone', async () => {
    const local = 'http://127.0.0.1:9/keys';
    await expect(fetchPublic(local, answering(new Response('{}')))).rejects.toThrow('not a public https address');
    expect(await fetchPublic(local, { loopback: answering(new Response('{"a":1}')) })).toBe('{"a":1}');
    await expect(fetchPublic('http://10.0.0.1/', { loopback: answering(new Response('{}')) })).rejects.toThrow(
      'public',
    );
  });
});
