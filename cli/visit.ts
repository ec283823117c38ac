/**
 * Owns the near end of a visit to a machine (`origin/shell/protocol.ts`): this process's streams, joined to those of a
 * process in a machine. Bounds: a chunk is read when the one before has left.
 */
import type { Writable } from 'node:stream';
import type { WebSocket } from 'ws';
import {
  ERROR_OUTPUT,
  type FromAgent,
  type FromClient,
  fromAgent,
  type Opening,
  SHELL_PATH,
} from '../origin/shell/protocol.ts';
import { fromErrorBody, MoorageError } from '../shared/errors.ts';
import type { ControlClient } from './control.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: string | null;
}

/** Streams of this end. `stdin` absent: the input ends at once. Outputs are left open. */
export interface Streams {
  readonly stdin?: AsyncIterable<unknown>;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

export interface RemoteVisit {
  /** How it ended, when all it said was written. @throws MoorageError when the machine or the agent went away. */
  readonly exited: Promise<Exit>;
  tell(word: FromClient): void;
  /** Cuts the connection: what still runs is hung up. */
  leave(): void;
}

/** Runs something in a machine. @throws MoorageError when it does not start; UsageError when no agent runs. */
export async function visit(control: ControlClient, wish: Opening, streams: Streams): Promise<RemoteVisit> {
  const socket = await control.stream(SHELL_PATH);
  const started = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<Exit>();
  exited.promise.catch(() => undefined);
  const fail = (error: Error) => {
    started.reject(error);
    exited.reject(error);
  };
  const settle = (word: FromAgent) => {
    if (word.type === 'started') started.resolve();
    else if (word.type === 'failed') fail(fromErrorBody({ error: word.error }));
    else void flushed(streams).then(() => exited.resolve({ code: word.code, signal: word.signal }));
  };
  socket.on('message', (data: Buffer, isBinary: boolean) => {
    if (!isBinary) settle(fromAgent.parse(JSON.parse(String(data))));
    else write(socket, data[0] === ERROR_OUTPUT ? streams.stderr : streams.stdout, data.subarray(1));
  });
  socket.once('close', () => fail(new MoorageError('machine_failed', 'The connection to the agent was lost.')));
  socket.resume();
  socket.send(JSON.stringify(wish));
  await started.promise;
  const tell = (word: FromClient) => socket.send(JSON.stringify(word), () => undefined);
  void feed(socket, streams.stdin).then(
    () => tell({ type: 'end' }),
    (error: Error) => {
      // Half an input must not pass for a whole one.
      fail(error);
      socket.terminate();
    },
  );
  return { exited: exited.promise, tell, leave: () => socket.terminate() };
}

function write(socket: WebSocket, to: Writable, data: Buffer): void {
  if (to.write(data)) return;
  socket.pause();
  to.once('drain', () => socket.resume());
}

async function feed(socket: WebSocket, from: Streams['stdin']): Promise<void> {
  for await (const chunk of from ?? []) {
    await new Promise<void>((resolve, reject) => {
      socket.send(chunk as Buffer, (error) => (error ? reject(error) : resolve()));
    });
  }
}

async function flushed({ stdout, stderr }: Streams): Promise<void> {
  await Promise.all(
    [stdout, stderr].map((stream) => new Promise<void>((resolve) => stream.write('', () => resolve()))),
  );
}
