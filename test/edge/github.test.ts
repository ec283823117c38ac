/** Where GitHub is asked, by what its owner configured; and which endpoints of an upstream the edge calls at all. */
import { describe, expect, test } from 'vitest';
import { githubApi, githubEndpoints, githubName } from '../../edge/auth/oauth/github.ts';
import { fetchUpstream } from '../../edge/auth/oauth/reach.ts';
import { oauthSchema } from '../../shared/config/oauth.ts';

const upstreamOf = (url?: string) => {
  const upstream = { type: 'github', clientId: 'a', allow: ['ada'], ...(url === undefined ? {} : { url }) };
  const parsed = oauthSchema.parse({ upstream }).upstream;
  if (parsed?.type !== 'github') throw new Error('no GitHub');
  return parsed;
};

test.each([
  [undefined, 'https://github.com', 'https://api.github.com', 'GitHub'],
  [
    'https://ghe.example.com/',
    'https://ghe.example.com',
    'https://ghe.example.com/api/v3',
    'GitHub at ghe.example.com',
  ],
  ['https://acme.ghe.com', 'https://acme.ghe.com', 'https://api.acme.ghe.com', 'GitHub at acme.ghe.com'],
])('GitHub at %s', (url, base, api, name) => {
  const upstream = upstreamOf(url);
  expect([githubApi(upstream), githubName(upstream)]).toEqual([api, name]);
  expect(githubEndpoints(upstream)).toEqual({
    authorize: `${base}/login/oauth/authorize`,
    token: `${base}/login/oauth/access_token`,
  });
});

test.each(['http://ghe.example.com', 'https://ghe.example.com/x', 'https://u:p@ghe.example.com', 'ghe.example.com'])(
  'GitHub cannot be at %s',
  (url) => {
    expect(() => upstreamOf(url)).toThrow();
  },
);

describe('an endpoint of an upstream', () => {
  const called: string[] = [];
  const through = (by: string) => async (url: string) => {
    called.push(`${by} ${url}`);
    return new Response();
  };
  const call = (url: string, local: boolean) =>
    fetchUpstream(url, {}, local ? { fetch: through('loopback') } : undefined, through('network'));

  test.each([
    'http://ghe.example.com/token',
    'https://10.0.0.1/token',
    'https://169.254.169.254/latest',
    'https://[fd00::1]/token',
    'https://2130706433/token',
    'https://ghe.internal/token',
    'https://u:p@ghe.example.com/token',
    'http://127.0.0.1:1234/token',
  ])('at %s is not called', async (url) => {
    await expect(call(url, false)).rejects.toThrow('no public https address');
    expect(called).toEqual([]);
  });

  test('that is public is called, and one on the own host by the way that was opened to it', async () => {
    await call('https://ghe.example.com/token', true);
    await call('http://127.0.0.1:1234/token', true);
    expect(called).toEqual(['network https://ghe.example.com/token', 'loopback http://127.0.0.1:1234/token']);
  });
});
