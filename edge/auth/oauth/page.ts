/**
 * Owns the pages that a person sees while a client logs in: what is asked, where it goes next, and why not. Pure.
 *
 * Every text may come from a client: all of it is escaped, nothing on a page runs, and no page can be framed.
 */
import type { ConsentDescription } from '@cloudflare/workers-oauth-provider';
import { html, raw } from 'hono/html';

/** HTML whose values are escaped. */
type Html = ReturnType<typeof html>;

const STYLE = `body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;padding:0 1rem;color:#1d2530;background:#f6f7f9}
main{background:#fff;border:1px solid #d9dee5;border-radius:10px;padding:1.5rem 2rem}h1{font-size:1.25rem}
dt{color:#5a6675;font-size:.85rem}dd{margin:0 0 .75rem;overflow-wrap:anywhere}
.warn{background:#fff6e0;border:1px solid #f0d493;border-radius:6px;padding:.5rem .75rem}
input[type=text]{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #aab4c1;border-radius:6px}
button{font:inherit;padding:.5rem 1.25rem;border-radius:6px;border:1px solid #aab4c1;background:#fff;cursor:pointer}
button.go{background:#1357a6;border-color:#1357a6;color:#fff}`;

/** The only style that a page may have, by its digest. */
let styleDigest: Promise<string> | undefined;

async function digestOfStyle(): Promise<string> {
  const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(STYLE)));
  return btoa(String.fromCharCode(...sum));
}

/** A page as a response. `headers` are kept, but for those that a page of ours always has. */
export async function page(title: string, body: Html, status = 200, headers = new Headers()): Promise<Response> {
  styleDigest ??= digestOfStyle();
  headers.set('content-type', 'text/html; charset=utf-8');
  headers.set(
    'content-security-policy',
    `default-src 'none'; style-src 'sha256-${await styleDigest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'`,
  );
  headers.set('x-frame-options', 'DENY');
  headers.set('x-content-type-options', 'nosniff');
  // With `no-referrer` browsers would post the form with `Origin: null` (Fetch standard, "append a request Origin header").
  headers.set('referrer-policy', 'same-origin');
  headers.set('cache-control', 'no-store');
  const text = html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${title}</title><style>${raw(STYLE)}</style></head><body><main>
<h1>${title}</h1>
${body}
</main></body></html>
`;
  return new Response(String(await text), { status, headers });
}

export interface Asked {
  readonly description: ConsentDescription;
  /** The form's own secret, which works once. */
  readonly handle: string;
  /** What is asked for, as its URL. */
  readonly resource: string;
  /** Whether a one-time code proves who agrees; else the upstream does, afterwards. */
  readonly byCode: boolean;
  /** Where people log in, for the button. */
  readonly upstream: string | null;
  /** What was wrong with the answer before. */
  readonly problem?: string;
}

/** The question, as the body of a page. */
export function question({ description, handle, resource, byCode, upstream, problem }: Asked): Html {
  const { clientName, clientDomain, redirectUri, redirectHost, redirectIsLoopback, scope } = description;
  const who = clientDomain
    ? html`<strong>${clientDomain}</strong>, which calls itself “${clientName}”`
    : html`A client that calls itself “<strong>${clientName}</strong>” (nobody has checked that)`;
  return html`<p>${who} wants to use MCP servers in your name.</p>
${problem === undefined ? '' : html`<p class="warn">${problem}</p>`}
<dl><dt>It asks for</dt><dd>${resource}</dd>
<dt>Rights</dt><dd>${scope.length > 0 ? scope.join(', ') : 'the servers that you may use'}</dd>
<dt>The answer goes to</dt><dd><strong>${redirectHost}</strong><br>${redirectUri}</dd></dl>
${redirectIsLoopback ? html`<p class="warn">The answer goes to a program on the computer of this browser. Agree only if you have just started it.</p>` : ''}
<form method="post"><input type="hidden" name="handle" value="${handle}">
${
  byCode
    ? html`<p><label for="code">One-time code, from <code>moorage login code</code></label>
<input type="text" id="code" name="code" autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="32"></p>`
    : ''
}
<p><button class="go" name="decision" value="allow">${upstream === null ? 'Allow' : `Allow, and log in with ${upstream}`}</button>
<button name="decision" value="deny">Deny</button></p></form>`;
}

/**
 * Leads on to `url`. A page, for a redirect would be held against `form-action` by browsers, which would have to name every
 * place that a client or an upstream may lead to.
 */
export function onward(url: string, headers = new Headers()): Promise<Response> {
  headers.delete('location');
  headers.set('refresh', `0;url=${url}`);
  return page('You can go on', html`<p><a href="${url}">Continue</a> if nothing happens.</p>`, 200, headers);
}

export const problemPage = (message: string, status: number, headers?: Headers): Promise<Response> =>
  page('This did not work', html`<p>${message}</p>`, status, headers);
