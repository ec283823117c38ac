/** Owns the settings of authentication, read out of the Worker's bindings. */
import { z } from 'zod';
import { type AuthConfig, authSchema, LOOPBACK_ONLY } from '../../shared/config/auth.ts';
import { type Settings, settingOf } from '../settings.ts';

const NOBODY: AuthConfig = { loopback: false, tokens: false, jwt: [] };

/** Which kinds of credentials are taken. @throws MoorageError `internal` when `MOORAGE_AUTH` is malformed. */
export function authOf(settings: Settings): AuthConfig {
  if (settings.MOORAGE_AUTH === 'loopback') return LOOPBACK_ONLY;
  return settingOf(settings, 'MOORAGE_AUTH', authSchema, NOBODY);
}

const names = z.array(z.string());

/** Names beside the public URL's by which this edge may be called. */
export const hostsOf = (settings: Settings): readonly string[] => settingOf(settings, 'MOORAGE_HOSTS', names, []);

/** Origins of web pages that may use this edge. */
export const allowedOriginsOf = (settings: Settings): readonly string[] =>
  settingOf(settings, 'MOORAGE_ALLOWED_ORIGINS', names, []);

/** Where clients reach this edge, without a slash at the end: as configured, else as this request was addressed. */
export function baseOf(settings: Settings, url: URL): string {
  const configured = settings.MOORAGE_PUBLIC_URL ? URL.parse(settings.MOORAGE_PUBLIC_URL) : null;
  return (configured ?? url).origin;
}
