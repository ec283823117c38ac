/**
 * Owns the streams of `moorage shell`, `exec` and `cp`: a visit to a machine over a WebSocket, as `shell/protocol.ts` says.
 *
 * Bounds: a chunk of output is read when the one before has left; a client that outruns the process is not read from; one
 * that says nothing first, or anything wrong, is cut off.
 */
import type { Readable } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import { MoorageError, toErrorBody, toMoorageError } from '../../shared/errors.ts';
import {
  ERROR_OUTPUT,
  type FromAgent,
  type FromClient,
  fromClient,
  type Opening,
  OUTPUT,
  opening,
} from '../shell/protocol.ts';
import type { Visit, Visits } from '../shell/visits.ts';
import type { ServerProcess } from '../vm/driver.ts';
import type { ControlSocket } from './control.ts';

/** A client has this long for its first word, in milliseconds. */
const OPENING_MS = 10_000;

export function shellSocket(visits: Visits): ControlSocket {
  return async (socket) => {
    const gone = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    let visit: Visit | undefined;
    try {
      const { server, ...wish } = await firstWord(socket);
      visit = await visits.begin(server, wish);
      const { process } = visit;
      // Input that nobody takes any more is read on, and dropped.
      process.stdin.once('close', () => socket.resume());
      socket.on('message', (data, isBinary) => hear(socket, process, data, isBinary));
      await say(socket, { type: 'started' });
      socket.resume();
      await Promise.race([gone, deliver(socket, process)]);
    } catch (error) {
      const { error: body } = toErrorBody(toMoorageError(error));
      await say(socket, { type: 'failed', error: body }).catch(() => undefined);
    } finally {
      visit?.leave();
      socket.close();
      // Closing takes an answer, which a paused socket would not hear.
      socket.resume();
    }
  };
}

async function firstWord(socket: WebSocket): Promise<Opening> {
  const wrong = new MoorageError('invalid_request', 'The first word of a shell must say what to run.');
  const text = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(wrong), OPENING_MS);
    socket.once('close', () => reject(wrong));
    socket.once('message', (data, isBinary) => {
      clearTimeout(timer);
      // What follows waits until there is a process to take it.
      socket.pause();
      if (isBinary) reject(wrong);
      else resolve(String(data));
    });
  });
  const parsed = opening.safeParse(parse(text));
  if (!parsed.success) throw wrong;
  return parsed.data;
}

/** Sends what the process says, then how it ended. */
async function deliver(socket: WebSocket, process: ServerProcess): Promise<void> {
  await Promise.all([pump(process.stdout, OUTPUT, socket), pump(process.stderr, ERROR_OUTPUT, socket)]);
  await say(socket, { type: 'exit', ...(await process.exited) });
}

async function pump(stream: Readable, channel: number, socket: WebSocket): Promise<void> {
  try {
    for await (const chunk of stream) await send(socket, Buffer.concat([Buffer.of(channel), chunk as Buffer]));
  } catch (error) {
    if (socket.readyState === socket.OPEN) throw new MoorageError('machine_failed', 'The machine ended.');
    throw error;
  }
}

function hear(socket: WebSocket, process: ServerProcess, data: RawData, isBinary: boolean): void {
  if (isBinary) {
    if (process.stdin.destroyed || process.stdin.write(data as Buffer) || socket.isPaused) return;
    socket.pause();
    process.stdin.once('drain', () => socket.resume());
    return;
  }
  const parsed = fromClient.safeParse(parse(String(data)));
  if (parsed.success) obey(process, parsed.data);
  else socket.close(1008, 'invalid_request');
}

function obey(process: ServerProcess, word: FromClient): void {
  switch (word.type) {
    case 'end':
      process.stdin.end();
      return;
    case 'resize':
      process.resize?.({ columns: word.columns, rows: word.rows });
      return;
    case 'signal':
      process.kill(word.signal);
      return;
  }
}

const say = (socket: WebSocket, word: FromAgent): Promise<void> => send(socket, JSON.stringify(word));

function send(socket: WebSocket, data: string | Buffer): Promise<void> {
  return new Promise((resolve, reject) => socket.send(data, (error) => (error ? reject(error) : resolve())));
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
