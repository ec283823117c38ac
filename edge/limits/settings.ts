/** Owns the limits as the Worker is told them. */
import { type CallerLimits, callerLimits } from '../../shared/config/quotas.ts';
import { type Settings, settingOf } from '../settings.ts';

const NONE: CallerLimits = {};

/** None where they are not configured. @throws MoorageError when the setting is malformed. */
export const limitsOf = (settings: Settings): CallerLimits => settingOf(settings, 'MOORAGE_LIMITS', callerLimits, NONE);
