/**
 * The program that represents the host inside a machine; bundled into the base image and started by its init.
 *
 * It owns every process that the host asked for and the one pipe to the host. It keeps no state worth saving: when the
 * pipe breaks or the protocol is violated it exits, and init then syncs the disk and powers the machine off.
 */
import { spawn } from 'node:child_process';
import {
  decodeCredit,
  decodeEnd,
  decodeJson,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameDecoder,
  FrameError,
  MAX_STREAMS,
  PROTOCOL_VERSION,
} from './mux.ts';
import { findPort, openPort } from './port.ts';
import { GuestProcess } from './process.ts';

/** A clock that is off by less stays as it is: busybox sets whole seconds only. */
const CLOCK_TOLERANCE_MS = 2000;

const processes = new Map<number, GuestProcess>();
const decoder = new FrameDecoder();

/**
 * A busybox shell that stays: starting a process costs tens of milliseconds under emulation, a line to a running shell
 * costs almost none. It answers each line with one line, in order.
 */
const shell = spawn(
  '/bin/sh',
  ['-c', 'while read -r op arg; do case $op in sync) sync;; date) date -u -s "@$arg" >/dev/null;; esac; echo; done'],
  {
    stdio: ['pipe', 'pipe', 'inherit'],
  },
);
const shellWaiters: (() => void)[] = [];
shell.stdout.on('data', (data: Buffer) => {
  for (const byte of data) if (byte === 0x0a) shellWaiters.shift()?.();
});
shell.once('exit', () => leave('the helper shell ended'));

function inShell(line: string): Promise<void> {
  return new Promise((resolve) => {
    shellWaiters.push(resolve);
    shell.stdin.write(`${line}\n`);
  });
}

/** Ends the agent. An ordinary exit would wait for the thread that sits in read(2) on the port, which is for ever. */
function end(): void {
  process.kill(process.pid, 'SIGKILL');
}

function leave(why: string): void {
  console.error(`moorage agent: ${why}`);
  end();
}

async function control(request: Record<string, unknown>): Promise<void> {
  switch (request.op) {
    case 'ping':
      return;
    case 'sync':
      return inShell('sync');
    case 'time': {
      const now = Number(request.ms);
      if (Number.isFinite(now) && Math.abs(Date.now() - now) > CLOCK_TOLERANCE_MS) {
        await inShell(`date ${Math.round(now / 1000)}`);
      }
      return;
    }
    case 'shutdown':
      await shutdown(Number(request.graceMs) || 0);
      return;
    default:
      throw new Error(`unknown operation ${String(request.op)}`);
  }
}

/** Ends the processes (SIGTERM, then after the grace SIGKILL); init unmounts once the agent has left. */
async function shutdown(graceMs: number): Promise<void> {
  for (const child of processes.values()) child.signal(15);
  const deadline = Date.now() + graceMs;
  while (processes.size > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  setImmediate(end);
}

function open(frame: Frame): void {
  const { stream } = frame;
  try {
    if (processes.has(stream)) throw new FrameError('stream opened twice');
    if (processes.size >= MAX_STREAMS) throw new Error(`the machine already runs ${MAX_STREAMS} processes`);
    processes.set(stream, new GuestProcess(stream, port, decodeJson(frame), () => processes.delete(stream)));
  } catch (error) {
    if (error instanceof FrameError) throw error;
    port.send(encodeJson(FRAME.failed, stream, { message: error instanceof Error ? error.message : String(error) }));
  }
}

function handle(frame: Frame): void {
  const child = processes.get(frame.stream);
  switch (frame.type) {
    case FRAME.control: {
      const request = decodeJson(frame);
      control(request).then(
        () => port.send(encodeJson(FRAME.control, 0, { id: request.id })),
        (error: Error) => port.send(encodeJson(FRAME.control, 0, { id: request.id, error: error.message })),
      );
      return;
    }
    case FRAME.open:
      open(frame);
      return;
    // The rest is for a process that may just have ended: then there is nothing left to do.
    case FRAME.stdin:
      child?.write(frame.payload);
      return;
    case FRAME.end:
      decodeEnd(frame);
      child?.endInput();
      return;
    case FRAME.credit: {
      const { channel, bytes } = decodeCredit(frame);
      child?.grant(channel, bytes);
      return;
    }
    case FRAME.signal:
      child?.signal(frame.payload[0] ?? 15);
      return;
    default:
      throw new FrameError(`the host may not send frame type ${frame.type}`);
  }
}

const port = openPort(
  findPort('moorage'),
  (chunk) => {
    try {
      for (const frame of decoder.push(chunk)) handle(frame);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      leave(error.message);
    }
  },
  leave,
);
port.onDrain = () => {
  for (const child of processes.values()) child.resume();
};
port.send(encodeFrame(FRAME.hello, 0, Buffer.from([PROTOCOL_VERSION])));
