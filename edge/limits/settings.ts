/** Owns the limits as the Worker is told them. */
import { type CallerLimits, callerLimits, type Rate } from '../../shared/config/quotas.ts';
import { type Settings, settingOf } from '../settings.ts';

const NONE: CallerLimits = {};

/** None where they are not configured. @throws MoorageError when the setting is malformed. */
export const limitsOf = (settings: Settings): CallerLimits => settingOf(settings, 'MOORAGE_LIMITS', callerLimits, NONE);

/** What all callers together may ask of a server; undefined where that is not bounded. */
export const serverRateOf = ({ perServer, servers = {} }: CallerLimits, server: string): Rate | undefined =>
  (Object.hasOwn(servers, server) ? servers[server] : undefined) ?? perServer;
