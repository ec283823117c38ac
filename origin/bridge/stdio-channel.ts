/**
 * Owns the pipes of one server process: one JSON-RPC message a line (MCP, basic/transports, "stdio").
 *
 * States: open, ending (stdin closed, then SIGTERM, then SIGKILL, each after a grace), closed.
 * Untrusted: everything the process writes. A line that is no message is logged and skipped, an endless line is skipped
 * in bounded memory (and loses the request whose number stands in it), stderr goes to the owner's log.
 */
import type { Readable } from 'node:stream';
import { MoorageError } from '../../shared/errors.ts';
import { parseExactly } from '../../shared/exact-json.ts';
import { idOfBadAnswer, type JsonRpcMessage, parseJson, parseMessage } from '../../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import type { Log } from '../log.ts';
import type { Redactor } from '../secrets/redact.ts';
import type { ProcessExit, ServerProcess } from '../vm/driver.ts';
import { badAnswer, type Channel, type ChannelEnd, type ChannelEvents } from './channel.ts';
import { type Line, LineSplitter } from './lines.ts';

/** How long a server may take to end by itself when its stdin closes, and again after SIGTERM, in milliseconds. */
const END_GRACE_MS = 2_000;
/** How long output is still read after the process has ended, in milliseconds. */
const DRAIN_MS = 1_000;
const STDERR_TAIL_LINES = 20;
const MAX_STDERR_LINE_BYTES = 64 * 1024;
/** Lines of one process that are no messages and still reach the log, at most: garbage must not fill a disk. */
const MAX_LOGGED_GARBAGE = 1_000;

const OBJECT = /^\s*\{/;

export interface StdioChannelOptions {
  readonly server: string;
  readonly machine: string;
  readonly process: ServerProcess;
  readonly log: Log;
  /** Of what the process was given. Messages are passed on as they come: their owner redacts them. */
  readonly redactor: Redactor;
  /** Hears that it ended although nobody asked it to ("exited with code 1"), and how many requests it had answered. */
  readonly crashed?: (how: string, answers: number) => void;
}

export class StdioChannel implements Channel {
  readonly #options: StdioChannelOptions;
  readonly #events: ChannelEvents;
  readonly #stderr = new LineSplitter(MAX_STDERR_LINE_BYTES);
  #stderrTail: string[] = [];
  #garbage = 0;
  #answers = 0;
  #ending = false;
  #open = true;
  readonly closed: Promise<ChannelEnd>;

  constructor(options: StdioChannelOptions, events: ChannelEvents) {
    this.#options = options;
    this.#events = events;
    const { process } = options;
    const splitter = new LineSplitter(MAX_MESSAGE_BYTES);
    process.stdout.on('data', (chunk: Buffer) => {
      for (const line of splitter.push(chunk)) this.#line(line);
    });
    process.stderr.on('data', (chunk: Buffer) => {
      for (const line of this.#stderr.push(chunk)) this.#logStderr(line);
    });
    // EPIPE and destroyed streams end in `exited`, which settles everything.
    for (const stream of [process.stdin, process.stdout, process.stderr]) stream.on('error', () => undefined);
    const drained = Promise.all([finished(process.stdout), finished(process.stderr)]);
    this.closed = process.exited.then(async (exit) => {
      // The last answers may still be in the pipe. A grandchild that holds it open must not hold us.
      const late = new Promise<void>((resolve) => setTimeout(resolve, DRAIN_MS).unref());
      await Promise.race([drained, late]);
      return this.#close(exit);
    });
  }

  get unread(): number {
    return this.#options.process.stdin.writableLength;
  }

  send(message: JsonRpcMessage): void {
    const { stdin } = this.#options.process;
    if (this.#open && stdin.writable) stdin.write(`${JSON.stringify(message)}\n`);
  }

  abandon(): boolean {
    return false;
  }

  async end(): Promise<void> {
    const { process } = this.#options;
    if (!this.#ending && this.#open) {
      this.#ending = true;
      process.stdin.end();
      const term = setTimeout(() => process.kill('SIGTERM'), END_GRACE_MS);
      const kill = setTimeout(() => process.kill('SIGKILL'), 2 * END_GRACE_MS);
      void this.closed.then(() => {
        clearTimeout(term);
        clearTimeout(kill);
      });
    }
    await this.closed;
  }

  #line(line: Line): void {
    if (!this.#open) return;
    const { log, server } = this.#options;
    if (line.type === 'overlong') {
      log.warn(`server ${server} wrote a line of ${line.bytes} bytes; at most ${MAX_MESSAGE_BYTES} are passed on`);
      this.#loseOverlong(line);
      return;
    }
    // Told apart before it is parsed: a parser's exception is dear, and programs log to stdout by the megabyte.
    if (!OBJECT.test(line.text)) {
      this.#logGarbage(line.text);
      return;
    }
    let message: JsonRpcMessage;
    let value: unknown;
    try {
      value = parseJson(line.text, parseExactly);
      message = parseMessage(value);
    } catch {
      const answered = idOfBadAnswer(value);
      if (typeof answered === 'number') this.#events.lost(answered, badAnswer(server));
      this.#logGarbage(line.text);
      return;
    }
    if (!('method' in message)) this.#answers++;
    this.#events.message(message);
  }

  #logGarbage(text: string): void {
    const { log, server, machine, redactor } = this.#options;
    if (++this.#garbage > MAX_LOGGED_GARBAGE) return;
    log.server(server, machine, `(stdout, not a JSON-RPC message) ${redactor.cut(text.slice(0, 500))}`);
  }

  /** The id of a JSON-RPC answer stands near its start or its end; ours are plain numbers. */
  #loseOverlong({ head, tail }: Line & { type: 'overlong' }): void {
    const found = /"id"\s*:\s*(\d+)/.exec(head) ?? /"id"\s*:\s*(\d+)[^"]*$/.exec(tail);
    if (!found) return;
    const error = new MoorageError(
      'server_failed',
      `The answer of the server "${this.#options.server}" is larger than ${MAX_MESSAGE_BYTES} bytes and was not passed on.`,
    );
    this.#events.lost(Number(found[1]), error);
  }

  #logStderr(line: Line, isWhole = true): void {
    const { log, server, machine, redactor } = this.#options;
    const text =
      line.type === 'overlong'
        ? `${redactor.cut(line.head)}… (${line.bytes} bytes)`
        : isWhole
          ? redactor.text(line.text)
          : redactor.cut(line.text);
    log.server(server, machine, text);
    this.#stderrTail = [...this.#stderrTail, text].slice(-STDERR_TAIL_LINES);
  }

  #close(exit: ProcessExit): ChannelEnd {
    this.#open = false;
    // Last words often have no newline, or were cut short.
    const last = this.#stderr.end();
    if (last !== undefined) this.#logStderr(last, false);
    const how = exit.signal === null ? `exited with code ${exit.code}` : `was ended by ${exit.signal}`;
    const { server, machine, log } = this.#options;
    log.server(server, machine, `(moorage) the process ${how}${this.#ending ? ', as it was asked to' : ''}`);
    if (!this.#ending) {
      this.#options.crashed?.(how, this.#answers);
      const tail =
        this.#stderrTail.length > 0
          ? `; its last stderr lines:\n${this.#stderrTail.join('\n')}`
          : ' without a word on stderr';
      log.warn(`server ${server} ${how}${tail}`);
    }
    return {
      what: `The process of server "${server}" ${how}`,
      data: { cause: 'server_exited', exitCode: exit.code, signal: exit.signal },
    };
  }
}

/** Resolves when a stream has ended or was destroyed. */
function finished(stream: Readable): Promise<void> {
  return new Promise((resolve) => {
    stream.once('end', resolve);
    stream.once('close', resolve);
  });
}
