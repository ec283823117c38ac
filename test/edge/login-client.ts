/** A client of the built-in authorization server, with plain HTTP in the place of a browser. */
import { createHash, randomBytes } from 'node:crypto';

export const REDIRECT = 'http://127.0.0.1:7777/callback';

/** Registers a client. @returns its id, undefined when it was refused. */
export async function register(base: string, metadata: object = { redirect_uris: [REDIRECT] }): Promise<string> {
  const response = await fetch(`${base}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ client_name: 'A <b>client</b>', token_endpoint_auth_method: 'none', ...metadata }),
  });
  return ((await response.json()) as { client_id: string }).client_id;
}

export interface Page {
  readonly status: number;
  readonly text: string;
  readonly handle: string;
  readonly cookies: string;
  readonly headers: Headers;
  readonly onward: string | undefined;
}

export async function pageOf(response: Response): Promise<Page> {
  const text = await response.text();
  return {
    status: response.status,
    text,
    handle: /name="handle" value="([^"]+)"/.exec(text)?.[1] ?? '',
    cookies: response.headers
      .getSetCookie()
      .map((cookie) => cookie.split(';')[0])
      .join('; '),
    headers: response.headers,
    onward: response.headers.get('refresh')?.replace(/^0;url=/, ''),
  };
}

/** What a client does before it sends the browser: PKCE, state, the URL. */
export function authorizeUrl(base: string, parameters: Readonly<Record<string, string>>) {
  const verifier = randomBytes(32).toString('base64url');
  const url = new URL('/authorize', base);
  const all = {
    response_type: 'code',
    redirect_uri: REDIRECT,
    state: 'of-the-client',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...parameters,
  };
  for (const [name, value] of Object.entries(all)) url.searchParams.set(name, value);
  return { url, verifier };
}

/** The page on which a person decides. */
export const open = async (url: URL): Promise<Page> => await pageOf(await fetch(url, { redirect: 'manual' }));

/** Sends the page's form. */
export const decide = async (url: URL, page: Page, form: Record<string, string>): Promise<Page> =>
  await pageOf(
    await fetch(url, {
      method: 'POST',
      redirect: 'manual',
      headers: {
        'content-type': 'application/x-www-form-urlencoded',
        cookie: page.cookies,
        origin: url.origin,
      },
      body: new URLSearchParams({ handle: page.handle, ...form }).toString(),
    }),
  );

/** A request to the token endpoint, which revokes too (RFC 7009). */
export async function postToken(base: string, form: Record<string, string>) {
  const response = await fetch(`${base}/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams(form).toString(),
  });
  const text = await response.text();
  return { status: response.status, body: (text === '' ? {} : JSON.parse(text)) as Record<string, string> };
}
