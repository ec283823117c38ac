/**
 * Owns how the other half is reached through what stands in front of it: the service tokens of Cloudflare Access
 * (`MOORAGE_EDGE_ACCESS` for an origin and the command line, `MOORAGE_ORIGIN_ACCESS` for a local edge), and what is said when no
 * edge answers, or something else.
 *
 * Invariant: tokens come by the environment alone, so they are in no file of ours and in no argv.
 */
import { isErrorBody } from '../shared/errors.ts';
import { accessHeaders, isRefusalInFront, serviceToken, serviceTokens } from '../shared/service-token.ts';
import { RouterError } from './error.ts';

/** Headers for every request to the edge; none where no token is set. @throws RouterError `bad_access`, which does not show it. */
export function edgeAccessHeaders(env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const text = env.MOORAGE_EDGE_ACCESS;
  if (!text) return {};
  const token = serviceToken.safeParse(parsed(text));
  if (token.success) return accessHeaders(token.data);
  throw new RouterError(
    'bad_access',
    'MOORAGE_EDGE_ACCESS is malformed. Write the service token as {"clientId":"…","clientSecret":"…"}.',
  );
}

/** What is wrong with `MOORAGE_ORIGIN_ACCESS`, before an edge is started with it. @throws RouterError `bad_access`, which does not show it. */
export function checkOriginAccess(text: string): void {
  if (serviceTokens.safeParse(parsed(text)).success) return;
  throw new RouterError(
    'bad_access',
    'MOORAGE_ORIGIN_ACCESS is malformed. Write the service token of each origin as {"office":{"clientId":"…","clientSecret":"…"}}.',
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON: the same answer as for JSON of another form.
    return undefined;
  }
}

/**
 * Why an answer is none of the edge's; undefined for one that may be its own. `body` is what the answer held as JSON, undefined
 * for anything else.
 */
export function notOfEdge(host: string, status: number, body: unknown): RouterError | undefined {
  if (isErrorBody(body)) return undefined;
  if (isRefusalInFront(status)) {
    return new RouterError(
      'edge_refused',
      `What stands in front of the edge at ${host}, such as Cloudflare Access, lets nobody through without a login (status ${status}). Put a service token of it into MOORAGE_EDGE_ACCESS, as {"clientId":"…","clientSecret":"…"}.`,
    );
  }
  if (body !== undefined && status < 300) return undefined;
  return new RouterError(
    'no_edge',
    `What answers at ${host} is no edge of Moorage (status ${status}). Is the address right?`,
  );
}

/** Codes of OpenSSL for a certificate that nobody known here signed. */
const UNTRUSTED = /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_)/;

/** That an edge does not answer, by the error of `fetch`, which hides the reason in its cause. */
export function noAnswer(address: string, error: Error): RouterError {
  const cause = error.cause instanceof Error ? error.cause : error;
  const code = 'code' in cause ? String(cause.code) : '';
  const advice = UNTRUSTED.test(code)
    ? 'This machine does not know who signed its certificate: name a file with that authority in NODE_EXTRA_CA_CERTS.'
    : 'Is its address right, and does it run?';
  return new RouterError('edge_away', `The edge at ${address} does not answer (${cause.message || code}). ${advice}`);
}
