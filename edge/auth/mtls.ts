/**
 * Owns the kind `mtls`: a certificate that the client showed while the connection was made. Whoever ends TLS (Cloudflare, or the
 * local edge's own front, `local/tls.ts`) has checked that a trusted authority signed it, and tells by `request.cf`.
 */
import { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';
import type { Method } from './method.ts';

/** `request.cf.tlsClientAuth` of Cloudflare, as far as it is read. */
const shown = z.looseObject({
  certPresented: z.literal('1'),
  certVerified: z.string(),
  certRevoked: z.string().default('0'),
  certFingerprintSHA256: z.string(),
  certSubjectDNRFC2253: z.string(),
  certNotAfter: z.string(),
});

export const mtls: Method = async ({ auth, certificate }) => {
  const read = shown.safeParse(certificate);
  if (!auth.mtls || !read.success) return null;
  const { certVerified, certRevoked, certFingerprintSHA256, certSubjectDNRFC2253, certNotAfter } = read.data;
  if (certVerified !== 'SUCCESS' || certRevoked === '1') {
    throw new MoorageError(
      'authentication_required',
      'The certificate was not signed by an authority that is trusted here.',
    );
  }
  const fingerprint = certFingerprintSHA256.replaceAll(':', '').toLowerCase();
  const client = auth.mtls.clients.find(({ fingerprint: pinned, subject }) =>
    pinned === undefined ? subject === certSubjectDNRFC2253 : pinned === fingerprint,
  );
  if (!client)
    throw new MoorageError('authentication_required', 'This certificate is not among those that are let in here.');
  const ends = Date.parse(certNotAfter);
  return {
    subject: `mtls|${client.name}`,
    issuer: 'mtls',
    name: client.name,
    groups: client.groups,
    scopes: client.scopes,
    credential: { kind: 'mtls', id: fingerprint, ...(Number.isNaN(ends) ? {} : { expiresAt: ends }) },
  };
};
