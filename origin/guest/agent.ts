/**
 * The program that represents the host inside a machine; bundled into the base image and started by its init.
 *
 * It owns every process that the host asked for and the one pipe to the host. It keeps no state worth saving: when the
 * pipe breaks or the protocol is violated it exits, and init then syncs the disk and powers the machine off.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { Egress } from './egress.ts';
import { Gate } from './gate.ts';
import { HOLDS_FOLDER, heldForMs } from './holds.ts';
import {
  decodeCredit,
  decodeEnd,
  decodeJson,
  decodeResize,
  encodeFrame,
  encodeJson,
  FRAME,
  type Frame,
  FrameDecoder,
  FrameError,
  MAX_STREAMS,
  OUTGOING,
  PROTOCOL_VERSION,
} from './mux.ts';
import { findPort, openPort } from './port.ts';
import { GuestProcess } from './process.ts';
import { endServers, holdServers, releaseServers } from './servers-group.ts';
import { SYSCALLS_PROGRAM, Syscalls } from './syscalls.ts';

/** A clock that is off by less stays as it is: the message itself was under way. */
const CLOCK_TOLERANCE_MS = 100;

const processes = new Map<number, GuestProcess>();
const decoder = new FrameDecoder();
const syscalls = new Syscalls(SYSCALLS_PROGRAM, () => leave('the helper for system calls ended'));

/** Ends the agent. An ordinary exit would wait for the thread that sits in read(2) on the port, which is for ever. */
function end(): void {
  process.kill(process.pid, 'SIGKILL');
}

function leave(why: string): void {
  console.error(`moorage agent: ${why}`);
  end();
}

/** Carries out a request. Resolves with what the reply says besides its id. */
async function control(request: Record<string, unknown>): Promise<Record<string, unknown>> {
  switch (request.op) {
    case 'ping':
      return {};
    case 'sync':
      await syscalls.sync();
      return {};
    case 'time':
      await setClock(Number(request.ms));
      return {};
    case 'egress':
      await egress.allow(request.allow);
      return {};
    case 'thaw':
      await thaw(request);
      return {};
    case 'shutdown':
      await shutdown(Number(request.graceMs) || 0);
      return {};
    default:
      throw new Error(`unknown operation ${String(request.op)}`);
  }
}

async function setClock(ms: number): Promise<void> {
  if (Number.isFinite(ms) && Math.abs(Date.now() - ms) > CLOCK_TOLERANCE_MS) await syscalls.setClock(ms);
}

async function freeze(request: Record<string, unknown>): Promise<void> {
  const held = request.force === true ? 0 : heldForMs(HOLDS_FOLDER, uptime(), isAlive);
  if (held > 0) {
    gate.send(encodeJson(FRAME.control, 0, { id: request.id, heldMs: held }));
    return;
  }
  // What is to be copied writes nothing between its disk and its memory.
  if (request.still === true) await holdServers();
  await syscalls.sync().catch((error: unknown) => {
    releaseServers();
    throw error;
  });
  gate.closeWith(encodeJson(FRAME.control, 0, { id: request.id, frozen: true }));
}

async function thaw({ ms, seed, fresh, copy }: Record<string, unknown>): Promise<void> {
  if (fresh === true) {
    for (const child of processes.values()) child.reset();
    egress.reset();
  }
  // Before the next process is started: the agent steps into their group for that.
  if (!isCopy(copy)) releaseServers();
  gate.open(fresh === true);
  if (isCopy(copy)) becomeAnother(copy);
  await setClock(Number(ms));
  if (typeof seed === 'string') await syscalls.reseed(Buffer.from(seed, 'base64'));
  // Those that go on in a copy draw no number before the kernel has new ones. The host starts nothing until it is answered.
  if (isCopy(copy)) releaseServers();
}

/** This machine is a copy of another one: whom it was copied from goes on under the old name. */
interface Copy {
  readonly hostname: string;
  readonly machineId: string;
  /** Streams of the processes that go on here. */
  readonly keep: readonly number[];
}

const isCopy = (value: unknown): value is Copy => typeof value === 'object' && value !== null && 'machineId' in value;

/** Its processes are still: those that do not go on never do another step with what they know. */
function becomeAnother({ hostname, machineId, keep }: Copy): void {
  if (keep.length === 0) endServers();
  for (const [stream, child] of processes) if (!keep.includes(stream)) child.signal(9);
  writeFileSync('/proc/sys/kernel/hostname', hostname);
  writeFileSync('/run/machine-id', `${machineId}\n`);
}

const uptime = (): number => Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`);

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
    processes.set(stream, new GuestProcess(stream, gate, decodeJson(frame), () => processes.delete(stream)));
  } catch (error) {
    if (error instanceof FrameError) throw error;
    gate.send(encodeJson(FRAME.failed, stream, { message: error instanceof Error ? error.message : String(error) }));
  }
}

function handle(frame: Frame): void {
  if (frame.stream >= OUTGOING) {
    egress.handle(frame);
    return;
  }
  const child = processes.get(frame.stream);
  switch (frame.type) {
    case FRAME.control: {
      const request = decodeJson(frame);
      const fail = (error: Error) => gate.send(encodeJson(FRAME.control, 0, { id: request.id, error: error.message }));
      if (request.op === 'freeze') freeze(request).catch(fail);
      else control(request).then((said) => gate.send(encodeJson(FRAME.control, 0, { ...said, id: request.id })), fail);
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
    case FRAME.resize:
      child?.resize(decodeResize(frame));
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
const gate = new Gate(port);
gate.onDrain = () => {
  for (const child of processes.values()) child.resume();
  egress.resume();
};
const egress = new Egress(gate);
gate.send(encodeFrame(FRAME.hello, 0, Buffer.from([PROTOCOL_VERSION])));
egress.start();
