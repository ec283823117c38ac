/**
 * Owns where a stdio client's server is right now: at a remote router, at the router that uses the state folder, or at one
 * that this process starts because there is none.
 *
 * | The folder's router | When it is gone |
 * |---|---|
 * | `moorage up`, or a program's | an error that says so; it is found again when it is back, wherever it listens |
 * | `moorage stdio` of another client | this process takes its place: clients come and go in any order |
 * | our own | another one is sought or started |
 */
import { setTimeout as delay } from 'node:timers/promises';
import { RouterError } from '../../router/error.ts';
import type { Router, RouterOptions } from '../../router/router.ts';
import { type Holder, holderOf, isAlive } from '../../router/state.ts';
import type { Config } from '../../shared/config.ts';
import { MoorageError } from '../../shared/errors.ts';

/** Where to send messages. */
export interface Place {
  /** Base URL of the router: a server is at `<url>/<server>/mcp`. */
  locate(): Promise<string>;
  /** Ends what was started for this client. */
  close(): Promise<void>;
}

/** A router elsewhere, which is where it is. */
export function remotePlace(url: string): Place {
  return { locate: () => Promise.resolve(url), close: () => Promise.resolve() };
}

/** A router that is just starting gets this long, in milliseconds (its first machine image may have to be fetched). */
const START_WITHIN_MS = 120_000;
const LOOK_EVERY_MS = 50;

export interface LocalOptions {
  readonly config: Config;
  readonly options: RouterOptions & { readonly stateDir: string };
  readonly log: (line: string) => void;
}

export function localPlace({ config, options, log }: LocalOptions): Place {
  const { stateDir } = options;
  let own: Router | undefined;
  let attached: Holder | undefined;
  let seeking: Promise<string> | undefined;

  const seek = async (): Promise<string> => {
    for (const deadline = Date.now() + START_WITHIN_MS; Date.now() < deadline; await delay(LOOK_EVERY_MS)) {
      const holder = holderOf(stateDir);
      if (holder?.url !== undefined) {
        attached = holder;
        log(`the router of process ${holder.pid} serves at ${holder.url}`);
        return holder.url;
      }
      if (holder) continue;
      if (attached && attached.kind !== 'stdio') throw gone(attached);
      try {
        // Loaded only where it is needed: most clients find a router that runs already.
        const { startRouter } = await import('../../router/router.ts');
        own = await startRouter(config, options, 'stdio');
      } catch (error) {
        // Somebody was faster: use theirs.
        if (error instanceof RouterError && error.code === 'state_in_use') continue;
        throw new MoorageError('edge_away', `No router could be started: ${(error as Error).message}`);
      }
      log(`no router runs for this folder: started one at ${own.url}`);
      void own.ended.then((end) => {
        const failed = end === 'failed' ? own : undefined;
        own = end === 'failed' ? undefined : own;
        return failed?.close();
      });
      return own.url;
    }
    throw new MoorageError(
      'edge_away',
      `The router that uses the state folder does not serve after ${START_WITHIN_MS / 1000} s.`,
    );
  };

  return {
    locate: async () => {
      if (own) return own.url;
      if (attached?.url !== undefined && isAlive(attached)) return attached.url;
      seeking ??= seek().finally(() => {
        seeking = undefined;
      });
      return await seeking;
    },
    close: async () => {
      await seeking?.catch(() => {});
      await own?.close();
    },
  };
}

function gone({ kind, pid }: Holder): MoorageError {
  return new MoorageError(
    'edge_away',
    kind === 'up'
      ? `"moorage up" (process ${pid}), which runs this server, has ended. Start it again; this client then goes on.`
      : `The program (process ${pid}) whose router runs this server has ended. Start it again; this client then goes on.`,
  );
}
