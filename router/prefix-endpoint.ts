/**
 * Owns the one place where an answer names a path of the router: the first event of the transport of 2024-11-05 says where
 * its client posts, without knowing below which path the router is mounted.
 */
import { Transform } from 'node:stream';

/** Puts `prefix` before that path. Everything else passes as it comes. */
export function prefixEndpoint(prefix: string): Transform {
  let held = '';
  let done = false;
  return new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      if (done) return callback(null, chunk);
      held += chunk.toString('latin1');
      done = held.includes('\n\n');
      if (!done) return callback();
      callback(null, Buffer.from(held.replace(/^(event: endpoint\r?\ndata: ?)(?=\/)/m, `$1${prefix}`), 'latin1'));
    },
    flush(callback) {
      callback(null, done ? undefined : Buffer.from(held, 'latin1'));
    },
  });
}
