/**
 * Owns people who log in at GitHub: github.com, or a GitHub Enterprise Server ("Authorizing OAuth apps", "REST API endpoints for
 * users", "for organization members", "for teams").
 *
 * Invariant: a person is known by the number of the account; its login can be given up and taken by another.
 */
import { z } from 'zod';
import { isAllowed, type Upstream } from '../../../shared/config/oauth.ts';
import { MAX_GROUPS, subjectOf } from '../jwt.ts';
import type { Holder } from './holder.ts';
import { jsonAt, notListed, type Reach, refused } from './reach.ts';

export type GitHub = Extract<Upstream, { type: 'github' }>;

const PAGE = 100;

const account = z.looseObject({ id: z.number().int(), login: z.string().min(1) });
const organizations = z.array(z.looseObject({ login: z.string() }));
const teams = z.array(z.looseObject({ slug: z.string(), organization: z.looseObject({ login: z.string() }) }));

/** Where it asks people, and where it gives tokens. */
export const githubEndpoints = ({ url }: GitHub) => ({
  authorize: `${url}/login/oauth/authorize`,
  token: `${url}/login/oauth/access_token`,
});

export const githubScope = ({ groups }: GitHub): string => (groups ? 'read:user read:org' : 'read:user');

export const githubName = ({ url }: GitHub): string =>
  url === 'https://github.com' ? 'GitHub' : `GitHub at ${new URL(url).host}`;

/** github.com and GitHub Enterprise Cloud with data residency (`acme.ghe.com`) have a host of their own for it. */
export function githubApi({ url }: GitHub): string {
  const { host, protocol } = new URL(url);
  return host === 'github.com' || host.endsWith('.ghe.com') ? `${protocol}//api.${host}` : `${url}/api/v3`;
}

/** Whom a token is of. @throws MoorageError `issuer_away`, `authentication_required`, `forbidden`. */
export async function githubPerson(upstream: GitHub, accessToken: string | undefined, reach: Reach): Promise<Holder> {
  // What is wrong with a code GitHub says with status 200 and an "error" in the place of a token.
  if (accessToken === undefined) throw refused();
  const headers = { authorization: `Bearer ${accessToken}`, accept: 'application/json', 'user-agent': 'moorage' };
  const get = (path: string) => jsonAt(reach, `${githubApi(upstream)}${path}`, { headers });
  const known = account.safeParse(await get('/user'));
  if (!known.success) throw refused();
  const { id, login } = known.data;
  if (!isAllowed(upstream.allow, [login])) throw notListed();
  return {
    subject: subjectOf(upstream.url, String(id)),
    issuer: upstream.url,
    name: login,
    groups: upstream.groups ? await groupsOf(get) : [],
  };
}

/** `acme` for each organization, `acme/ops` for each team. */
async function groupsOf(get: (path: string) => Promise<unknown>): Promise<string[]> {
  const [inOrganizations, inTeams] = await Promise.all([
    pages(organizations, (page) => get(`/user/orgs?per_page=${PAGE}&page=${page}`)),
    pages(teams, (page) => get(`/user/teams?per_page=${PAGE}&page=${page}`)),
  ]);
  return [
    ...inOrganizations.map(({ login }) => login),
    ...inTeams.map(({ slug, organization }) => `${organization.login}/${slug}`),
  ].slice(0, MAX_GROUPS);
}

async function pages<T>(schema: z.ZodType<T[]>, page: (n: number) => Promise<unknown>): Promise<T[]> {
  const all: T[] = [];
  for (let n = 1; all.length < MAX_GROUPS; n++) {
    const listed = schema.safeParse(await page(n));
    if (!listed.success) throw refused();
    all.push(...listed.data);
    if (listed.data.length < PAGE) break;
  }
  return all;
}
