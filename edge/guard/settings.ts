/** Owns the settings by which the guard decides. */
import { type Access, access } from '../../shared/config/access.ts';
import { type Settings, settingOf } from '../settings.ts';

/** Who may use what; undefined where whoever is let in may use everything. @throws MoorageError when it is malformed. */
export const accessOf = (settings: Settings): Access | undefined =>
  settingOf(settings, 'MOORAGE_ACCESS', access.optional(), undefined);
