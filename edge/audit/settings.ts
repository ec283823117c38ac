/** Owns the settings of the audit, read out of the Worker's bindings. */
import { type AuditConfig, auditSchema, DEFAULT_AUDIT } from '../../shared/config/audit.ts';
import { type Settings, settingOf } from '../settings.ts';

export const auditOf = (settings: Settings): AuditConfig =>
  settingOf(settings, 'MOORAGE_AUDIT', auditSchema, DEFAULT_AUDIT);
