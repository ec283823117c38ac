/**
 * Writes `.moorage/edge-servers.ts` from `moorage.jsonc`, so that wrangler bundles the configured edge servers: the build
 * command of `wrangler.toml`, run in the project's folder. Without a configuration there are none.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { isEdgeServer } from '../../shared/config/entry.ts';
import { parseConfig } from '../../shared/config.ts';
import { edgeServersModule } from './edge-servers-module.ts';

const OUT_FILE = '.moorage/edge-servers.ts';

function configuredServers(): Record<string, string> {
  let text: string;
  try {
    text = readFileSync('moorage.jsonc', 'utf8');
  } catch {
    // A Worker may be deployed before anything is configured: it serves what its origins announce.
    return {};
  }
  const servers = [...parseConfig(text).servers].flatMap(([name, entry]) =>
    isEdgeServer(entry) ? [[name, resolve(entry.tools)] as const] : [],
  );
  return Object.fromEntries(servers);
}

mkdirSync('.moorage', { recursive: true });
writeFileSync(OUT_FILE, edgeServersModule(configuredServers()));
