/** Owns the settings by which the guard decides. */
import { z } from 'zod';
import { type Access, access } from '../../shared/config/access.ts';
import { type OutputSetting, outputSetting } from '../../shared/config/output.ts';
import { type Settings, settingOf } from '../settings.ts';

/** Who may use what; undefined where whoever is let in may use everything. @throws MoorageError when it is malformed. */
export const accessOf = (settings: Settings): Access | undefined =>
  settingOf(settings, 'MOORAGE_ACCESS', access.optional(), undefined);

const outputs = z.record(z.string(), outputSetting);
/** Whether something becomes of a server's tools when they change; without a name: of any server's. */
export function isPinned(settings: Settings, server?: string): boolean {
  const set =
    server === undefined
      ? Object.values(settingOf(settings, 'MOORAGE_OUTPUT', outputs, {}))
      : [outputOf(settings, server)];
  return set.some(({ pins = 'off' }) => pins !== 'off');
}

const AS_IT_IS: OutputSetting = {};

/** What becomes of a server's words. @throws MoorageError when the setting is malformed. */
export function outputOf(settings: Settings, server: string): OutputSetting {
  const byServer = settingOf(settings, 'MOORAGE_OUTPUT', outputs, {});
  return (Object.hasOwn(byServer, server) ? byServer[server] : undefined) ?? AS_IT_IS;
}
