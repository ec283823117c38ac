/**
 * A GitHub Enterprise Server in this process, on loopback, as far as an OAuth app meets it: people say yes, codes become tokens
 * (PKCE and the app's secret checked), and tokens tell who they are of. What is wrong with a code it says with status 200.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

export interface Account {
  readonly id: number;
  readonly login: string;
  readonly organizations?: readonly string[];
  /** `organization/slug`. */
  readonly teams?: readonly string[];
}

interface Login {
  readonly challenge: string;
  readonly scopes: readonly string[];
  readonly account: Account;
}

export const APP = { clientId: 'Iv1.moorage', secret: 'planted-secret-of-the-app' };

export class GitHubServer {
  readonly url: string;
  /** Paths that were asked for. */
  readonly asked: string[] = [];
  readonly #codes = new Map<string, Login>();
  readonly #tokens = new Map<string, Login>();
  readonly #close: () => void;

  private constructor(url: string, close: () => void) {
    this.url = url;
    this.#close = close;
  }

  static async start(): Promise<GitHubServer> {
    const holder: { github?: GitHubServer } = {};
    const server = createServer((request, response) => void holder.github?.serve(request, response));
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    holder.github = new GitHubServer(url, () => server.close());
    return holder.github;
  }

  /** Lets somebody say yes: what the browser brings back from `at`, the address to which the edge sent it. */
  login(at: string, account: Account): { code: string; state: string; redirect: string } {
    const { origin, pathname, searchParams: asked } = new URL(at);
    if (origin !== this.url || pathname !== '/login/oauth/authorize') throw new Error(`GitHub has nothing at ${at}`);
    if (asked.get('code_challenge_method') !== 'S256' || asked.get('client_id') !== APP.clientId) {
      throw new Error('not this app, or without PKCE');
    }
    const code = crypto.randomUUID();
    const scopes = (asked.get('scope') ?? '').split(' ');
    this.#codes.set(code, { challenge: asked.get('code_challenge') ?? '', scopes, account });
    return { code, state: asked.get('state') ?? '', redirect: asked.get('redirect_uri') ?? '' };
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '', this.url);
    this.asked.push(pathname);
    const json = (value: unknown, status = 200) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    if (request.method === 'POST' && pathname === '/login/oauth/access_token') {
      return void json(this.#exchange(new URLSearchParams(await text(request))));
    }
    const login = this.#tokens.get(/^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ?? '');
    // As GitHub refuses programs that do not say who they are.
    if (!request.headers['user-agent']) return void json({ message: 'no User-Agent' }, 403);
    if (!login) return void json({ message: 'Bad credentials' }, 401);
    const { id, login: name, organizations = [], teams = [] } = login.account;
    const page = <T>(list: readonly T[]): T[] => {
      const size = Number(searchParams.get('per_page') ?? 30);
      const from = (Number(searchParams.get('page') ?? 1) - 1) * size;
      return list.slice(from, from + size);
    };
    if (pathname === '/api/v3/user') return void json({ id, login: name, name: 'Ada', email: null });
    if (!login.scopes.includes('read:org')) return void json({ message: 'Requires read:org' }, 403);
    if (pathname === '/api/v3/user/orgs') return void json(page(organizations).map((org) => ({ login: org, id: 1 })));
    if (pathname !== '/api/v3/user/teams') return void json({ message: 'Not Found' }, 404);
    const split = teams.map((team) => team.split('/'));
    json(page(split).map(([org, slug]) => ({ id: 1, name: 'A Team', slug, organization: { login: org } })));
  }

  #exchange(form: URLSearchParams): object {
    if (form.get('client_secret') !== APP.secret || form.get('client_id') !== APP.clientId) {
      return { error: 'incorrect_client_credentials', error_description: 'The client_id and/or client_secret …' };
    }
    const code = form.get('code') ?? '';
    const login = this.#codes.get(code);
    this.#codes.delete(code);
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url');
    if (login?.challenge !== challenge) {
      return { error: 'bad_verification_code', error_description: 'The code passed is incorrect or expired.' };
    }
    const token = `gho_${crypto.randomUUID()}`;
    this.#tokens.set(token, login);
    return { access_token: token, token_type: 'bearer', scope: login.scopes.join(',') };
  }

  close(): void {
    this.#close();
  }
}
