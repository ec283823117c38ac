/** Owns service tokens of Cloudflare Access: what lets one half through Access to the other ("Service tokens" of its documentation). */
import { z } from 'zod';

/** Visible ASCII: both travel in headers. */
const part = z.string().regex(/^[\x21-\x7e]{1,512}$/);

export const serviceToken = z.object({ clientId: part, clientSecret: part });
export type ServiceToken = z.infer<typeof serviceToken>;
/** Of several, by what each leads to. */
export const serviceTokens = z.record(z.string(), serviceToken);

/** The headers that carry it. */
export const accessHeaders = ({ clientId, clientSecret }: ServiceToken): Record<string, string> => ({
  'CF-Access-Client-Id': clientId,
  'CF-Access-Client-Secret': clientSecret,
});

/**
 * Whether an answer says that something in front refused a program: a redirect (to a page for people), 401 or 403. The two
 * halves answer each other as JSON of their own (`ErrorBody`), which is for the caller to look at first.
 */
export const isRefusalInFront = (status: number): boolean =>
  (status >= 300 && status < 400) || status === 401 || status === 403;
