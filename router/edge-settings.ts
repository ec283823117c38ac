/** Owns what of the configuration the local edge is told, by the names of its bindings (`edge/env.ts`). Pure. */
import type { JWK } from 'jose';
import type { EdgeSettings } from '../edge/local/workerd-config.ts';
import { outputOf } from '../shared/config/output.ts';
import type { Config } from '../shared/config.ts';

/** `owner` is the owner's public key. */
export function edgeSettings(config: Config, owner: JWK): EdgeSettings {
  const { host, publicUrl, allowedHosts = [], allowedOrigins } = config.edge;
  return {
    MOORAGE_PUBLIC_URL: publicUrl,
    // Its own address too: agents and the command line of other hosts may use it.
    MOORAGE_HOSTS: JSON.stringify([...allowedHosts, host.includes(':') ? `[${host}]` : host]),
    MOORAGE_ALLOWED_ORIGINS: allowedOrigins && JSON.stringify(allowedOrigins),
    MOORAGE_AUDIT: JSON.stringify(config.audit),
    MOORAGE_AUTH: JSON.stringify(config.auth),
    MOORAGE_OWNER_KEY: JSON.stringify(owner),
    MOORAGE_ACCESS: config.access && JSON.stringify(config.access),
    MOORAGE_LIMITS: config.limits && JSON.stringify(config.limits),
    MOORAGE_OUTPUT: outputs(config),
  };
}

/** What entries say of their servers' words. */
function outputs({ servers }: Config): string | undefined {
  const given = [...servers].flatMap(([name, entry]) => {
    const output = outputOf(entry);
    return output ? [[name, output] as const] : [];
  });
  return given.length === 0 ? undefined : JSON.stringify(Object.fromEntries(given));
}
