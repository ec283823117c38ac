/**
 * The guest's end of the byte pipe: a virtio-serial port opened as a character device.
 *
 * libuv cannot poll such a device, so one thread of its pool waits in read(2) and writes go out one at a time. A write
 * blocks in the kernel while the host does not read, and `drained` tells producers to wait: that is the backpressure.
 */
import { constants, openSync, read, readdirSync, readFileSync, write } from 'node:fs';

const READ_SIZE = 64 * 1024;
/** Queue length at which producers are asked to wait. Credits bound the queue anyway; this keeps it short. */
const HIGH_WATER = 256 * 1024;
const BATCH = 64 * 1024;

export interface Port {
  send(frame: Buffer): void;
  /** True while producers of process output should hold back; `onDrain` fires when that ends. */
  readonly congested: boolean;
  onDrain: () => void;
}

/** Path of the port that the host named `name`. Throws when the machine has none. */
export function findPort(name: string): string {
  const root = '/sys/class/virtio-ports';
  for (const entry of readdirSync(root)) {
    if (readFileSync(`${root}/${entry}/name`, 'utf8').trim() === name) return `/dev/${entry}`;
  }
  throw new Error(`no virtio port named ${name}`);
}

/** Opens the port. `onData` gets private copies; `onGone` is called once, when the host's end is closed or broken. */
export function openPort(path: string, onData: (chunk: Buffer) => void, onGone: (why: string) => void): Port {
  const fd = openSync(path, constants.O_RDWR);
  const buffer = Buffer.allocUnsafe(READ_SIZE);
  let queue: Buffer[] = [];
  let queued = 0;
  let writing = false;
  let gone = false;

  const fail = (why: string) => {
    if (gone) return;
    gone = true;
    onGone(why);
  };

  const receive = () => {
    read(fd, buffer, 0, READ_SIZE, null, (error, count) => {
      if (error !== null || count === 0) {
        fail(error === null ? 'the host closed the channel' : error.message);
        return;
      }
      onData(Buffer.from(buffer.subarray(0, count)));
      receive();
    });
  };

  const port: Port = {
    get congested() {
      return queued > HIGH_WATER;
    },
    onDrain: () => undefined,
    send(frame) {
      if (gone) return;
      queue.push(frame);
      queued += frame.length;
      if (!writing) flush();
    },
  };

  const flush = () => {
    let size = 0;
    let frames = 0;
    while (frames < queue.length && size < BATCH) size += queue[frames++]?.length ?? 0;
    const batch = frames === 1 && queue[0] ? queue[0] : Buffer.concat(queue.slice(0, frames));
    queue = queue.slice(frames);
    writing = true;
    writeAll(batch, 0);
  };

  const writeAll = (batch: Buffer, from: number) => {
    write(fd, batch, from, batch.length - from, null, (error, count) => {
      if (error !== null) {
        fail(error.message);
        return;
      }
      if (from + count < batch.length) {
        writeAll(batch, from + count);
        return;
      }
      const wasCongested = queued > HIGH_WATER;
      queued -= batch.length;
      writing = false;
      if (queue.length > 0) flush();
      if (wasCongested && queued <= HIGH_WATER) port.onDrain();
    });
  };

  receive();
  return port;
}
