/**
 * Owns that a router has an edge as long as it lives: one that ends by itself is started again on the same port. Its
 * sessions are on disk, so clients notice a short pause.
 */
import type { RunningEdge } from '../edge/local/edge.ts';
import type { Log } from '../origin/log.ts';

/** Ends of the edge that are answered by another start, at most, within one run. */
const MAX_STARTS = 10;

export interface KeptEdge {
  readonly url: string;
  readonly port: number;
  /** Resolves when the edge has been stopped (`closed`), or ended too often or could not be started again (`failed`). */
  readonly ended: Promise<'closed' | 'failed'>;
  stop(): Promise<void>;
}

/** Starts an edge and keeps it. `start` gets the port to listen on. Rejects when the first start fails. */
export async function keepEdge(
  start: (port: number) => Promise<RunningEdge>,
  port: number,
  log: Log,
): Promise<KeptEdge> {
  let edge = await start(port);
  const { url, port: listening } = edge;
  const stop = Promise.withResolvers<void>();
  // A program that exits without closing its router must not leave a workerd behind.
  const onExit = () => process.kill(edge.pid, 'SIGKILL');

  const keep = async (): Promise<'closed' | 'failed'> => {
    for (let starts = 0; starts < MAX_STARTS; starts++) {
      const end = await Promise.race([stop.promise, edge.exited]);
      if (end === undefined) {
        await edge.stop();
        return 'closed';
      }
      log.warn(`the edge ended by itself (${end.signal ?? `code ${end.code}`}) and is started again`);
      try {
        edge = await start(listening);
      } catch (error) {
        log.error(error instanceof Error ? error.message : String(error));
        return 'failed';
      }
    }
    await edge.stop();
    log.error(`the edge ended ${MAX_STARTS} times. Its last words are in the log.`);
    return 'failed';
  };

  process.once('exit', onExit);
  const ended = keep().finally(() => process.off('exit', onExit));
  return {
    url,
    port: listening,
    ended,
    stop: async () => {
      stop.resolve();
      await ended;
    },
  };
}
