/**
 * Owns the administration of the edge, `/admin/api/*`: JSON in, JSON out, failures as `ErrorBody`. A noun is a file of this
 * folder that exports a Hono app, mounted here.
 *
 * Invariants: everything asks for the scope `admin`; a body is JSON and says so, which no form of a web page can.
 */
import { type Context, Hono } from 'hono';
import type { AuditKind } from '../../shared/audit.ts';
import { MoorageError } from '../../shared/errors.ts';
import { record, recordDenial } from '../audit/record.ts';
import { authenticate } from '../auth/authenticate.ts';
import { ADMINISTRATION } from '../auth/resource.ts';
import { refuse } from '../respond.ts';
import { audit } from './audit.ts';
import { type Admin, auditedOf } from './context.ts';
import { logins } from './logins.ts';
import { origins } from './origins.ts';
import { policy } from './policy.ts';
import { tokens } from './tokens.ts';
import { tools } from './tools.ts';

/** As what changes of a noun are written down, where that says more than that they were administered. */
const KINDS: Readonly<Record<string, AuditKind>> = { origins: 'enrolment', tools: 'policy', policy: 'policy' };

export const administration = new Hono<Admin>();

administration.onError((thrown, context) => {
  recordDenial(auditedOf(context), thrown);
  return refuse(thrown);
});

administration.use(async (context, next) => {
  const { req, env } = context;
  context.set('principal', await authenticate(req.raw, env, ADMINISTRATION));
  const hasBody = req.method === 'POST' || req.method === 'PUT' || req.method === 'PATCH';
  if (hasBody && !/^application\/json\b/i.test(req.header('content-type') ?? '')) {
    throw new MoorageError('unsupported_media_type', 'Administration takes application/json.');
  }
  await next();
  context.res.headers.set('cache-control', 'no-store');
  if (req.method === 'GET') return;
  const path = req.path.slice('/admin/api'.length, 300);
  const [, noun = ''] = path.split('/');
  record(auditedOf(context), {
    kind: KINDS[noun] ?? 'admin',
    action: `${req.method} ${path}`,
    detail: { status: context.res.status },
  });
});

administration.get('/whoami', (context) => {
  const { subject, issuer, name, groups, scopes, credential } = context.var.principal;
  return context.json({ subject, issuer, name, groups, scopes, credential });
});

administration.route('/tokens', tokens);
administration.route('/logins', logins);
administration.route('/origins', origins);
administration.route('/tools', tools);
administration.route('/policy', policy);
administration.route('/audit', audit);

administration.notFound((context: Context) =>
  refuse(new MoorageError('not_found', `Nothing is at ${context.req.path}.`)),
);
