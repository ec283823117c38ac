/** Owns an origin that runs by itself, for an edge elsewhere: what `moorage origin run` is, and a terminal. */
import { join } from 'node:path';
import { openLog } from '../origin/log.ts';
import type { Config } from '../shared/config.ts';
import { edgeAccessHeaders } from './edge-access.ts';
import { saveEdgeKeys, settled } from './enrolled.ts';
import { RouterError } from './error.ts';
import { type OriginHalfOptions, originHalf } from './origin-half.ts';
import { takeState } from './state.ts';

export interface RunningOrigin {
  readonly id: string;
  readonly edgeUrl: string;
  /** Where the tunnel must lead: `unix:/path` or `host:port`. */
  readonly address: string;
  close(): Promise<void>;
}

/**
 * Starts the origin that was enrolled with this state folder; resolves when its edge knows its servers.
 * @throws RouterError, MachineError, MoorageError.
 */
export async function runOrigin(
  config: Config,
  options: Omit<OriginHalfOptions, 'log'> & { readonly log: (line: string) => void },
): Promise<RunningOrigin> {
  const { stateDir } = options;
  const state = takeState(stateDir, 'origin');
  const undo: (() => void | Promise<void>)[] = [() => state.release()];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const log = openLog(join(stateDir, 'logs'), options.log);
    for (const warning of config.warnings) log.warn(warning);
    const { id, edgeUrl, edgeKeys } = await settled(stateDir);
    const origin = await originHalf(config, { ...options, log });
    if ([...origin.config.servers.values()].every(({ runtime }) => runtime === 'edge')) {
      throw new RouterError(
        'nothing_to_serve',
        'No configured server runs at an origin: this one has nothing to serve.',
      );
    }
    undo.push(() => origin.stop());
    const onEdgeKeys = (keys: Parameters<typeof saveEdgeKeys>[1]) => {
      log.info('the edge announced another key; it is pinned');
      saveEdgeKeys(stateDir, keys);
    };
    await origin.start({
      originId: id,
      key: async () => (await settled(stateDir)).key,
      edgeKeys,
      onEdgeKeys,
      edgeUrl,
      edgeHeaders: edgeAccessHeaders(),
    });
    await origin.prepare();
    return { id, edgeUrl, address: origin.address, close };
  } catch (error) {
    await close();
    throw error;
  }
}
