/**
 * Owns how an edge elsewhere is reached: the service token that lets an origin and the command line through Cloudflare Access in
 * front of it (`MOORAGE_EDGE_ACCESS`), and what is said when nothing answers, or something else.
 *
 * Invariant: the token comes by the environment alone, so it is in no file of ours and in no argv.
 */
import { isErrorBody } from '../shared/errors.ts';
import { accessHeaders, isRefusalInFront, serviceToken } from '../shared/service-token.ts';
import { RouterError } from './error.ts';

/** Headers for every request to the edge; none where no token is set. @throws RouterError `bad_access`, which does not show it. */
export function edgeAccessHeaders(env: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const text = env.MOORAGE_EDGE_ACCESS;
  if (!text) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Not JSON: the same answer as for JSON of another form.
  }
  const token = serviceToken.safeParse(value);
  if (token.success) return accessHeaders(token.data);
  throw new RouterError(
    'bad_access',
    'MOORAGE_EDGE_ACCESS is malformed. Write the service token as {"clientId":"…","clientSecret":"…"}.',
  );
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
