/**
 * Owns the way from a command to the agent that runs here: HTTP and WebSockets over the control socket of its state folder.
 * Failures come as `ErrorBody` and are thrown as the `MoorageError` that the agent meant.
 */
import { request } from 'node:http';
import { dirname, join, resolve } from 'node:path';
import { WebSocket } from 'ws';
import { socketPath } from '../router/state.ts';
import { fromErrorBody } from '../shared/errors.ts';
import { UsageError } from './usage.ts';

/** The largest answer that is read, in bytes. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

export interface ControlClient {
  /** One request; `path` begins with `/v1/`. @returns the parsed JSON. @throws MoorageError, UsageError (no agent runs). */
  call(method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown): Promise<unknown>;
  /** An open stream, paused: `resume()` it once somebody listens, so that no first word is lost. @throws UsageError (no agent runs, or it has no such stream). */
  stream(path: string): Promise<WebSocket>;
}

/** The state folder that a command means. */
export function stateDirOf({ config, state }: { config: string; state: string | undefined }): string {
  return resolve(state ?? join(dirname(resolve(config)), '.moorage'));
}

export function controlOf(where: { config: string; state: string | undefined }): ControlClient {
  const socket = socketPath(stateDirOf(where), 'control.sock');
  return {
    call: async (method, path, body) => {
      const { status, text } = await exchange(socket, method, path, body);
      const value: unknown = text === '' ? undefined : JSON.parse(text);
      if (status >= 400) throw fromErrorBody(value);
      return value;
    },
    stream: (path) =>
      new Promise((done, fail) => {
        const stream = new WebSocket(`ws+unix:${socket}:${path}`);
        stream.once('open', () => {
          stream.pause();
          done(stream);
        });
        stream.once('error', (error) => fail(explain(error)));
      }),
  };
}

function exchange(
  socketPath: string,
  method: string,
  path: string,
  body: unknown,
): Promise<{ status: number; text: string }> {
  return new Promise((done, fail) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const outgoing = request({ socketPath, method, path, headers }, (answer) => {
      const parts: Buffer[] = [];
      let size = 0;
      answer.on('data', (part: Buffer) => {
        size += part.length;
        if (size > MAX_ANSWER_BYTES) answer.destroy(new Error('The answer of the agent is too large.'));
        else parts.push(part);
      });
      answer.once('error', fail);
      answer.once('end', () => done({ status: answer.statusCode ?? 500, text: Buffer.concat(parts).toString() }));
    });
    outgoing.once('error', (error) => fail(explain(error)));
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** A socket that is not there, or that nobody listens at any more, has one meaning to its user. */
function explain(error: Error): Error {
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== 'ENOENT' && code !== 'ECONNREFUSED') return error;
  return new UsageError('No router runs here. Start one with "moorage up", or name its state folder with --state.');
}
