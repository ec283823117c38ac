/**
 * Owns one server process: writes messages to its stdin, reads them from its stdout, and settles every call exactly once.
 *
 * States: open, then closed (process or machine gone, or ended by us); it never opens again. A call in flight when it
 * closes fails with `outcome_unknown`: the server may have acted. Ids are `correlate.ts`'s concern.
 *
 * Untrusted: everything the process writes. A line that is no message is logged and skipped, an endless line is skipped
 * in bounded memory (and fails the call whose number stands in it), stderr goes to the owner's log.
 */
import type { Readable } from 'node:stream';
import { MoorageError } from '../../shared/errors.ts';
import {
  isRequest,
  isResponse,
  type JsonRpcMessage,
  type JsonRpcRequest,
  type JsonRpcResponse,
  parseJson,
  parseMessage,
} from '../../shared/jsonrpc.ts';
import { MAX_MESSAGE_BYTES } from '../../shared/origin-api.ts';
import type { Log } from '../log.ts';
import type { ProcessExit, ServerProcess } from '../vm/driver.ts';
import { type Call, type CallNumber, Correlator, MAX_IN_FLIGHT, type Route } from './correlate.ts';
import { type Line, LineSplitter } from './lines.ts';

/** Where a call's messages go. Exactly one of `answer` and `fail` is called, once, and nothing after it. */
export interface CallSink {
  /** False when nobody reads any more: messages then look for another way. */
  readonly open: boolean;
  message(message: JsonRpcMessage): void;
  answer(message: JsonRpcResponse): void;
  fail(error: MoorageError): void;
}

export interface PeerOptions {
  readonly server: string;
  readonly process: ServerProcess;
  readonly mode: 'own' | 'shared';
  readonly nonce: string;
  readonly log: Log;
  /** Makes what the process wrote durable; awaited before a tool's result is passed on. */
  readonly sync: () => Promise<void>;
  /** What the server says unasked. */
  readonly unasked: (sessions: readonly string[], message: JsonRpcMessage) => void;
}

/** Unread bytes towards a server's stdin, at most. */
const MAX_UNREAD_BYTES = 4 * MAX_MESSAGE_BYTES;
/** How long a server may take to end by itself when its stdin closes, and again after SIGTERM, in milliseconds. */
const END_GRACE_MS = 2_000;
/** How long output is still read after the process has ended, in milliseconds. */
const DRAIN_MS = 1_000;
const STDERR_TAIL_LINES = 20;

export class Peer {
  readonly #options: PeerOptions;
  readonly #correlator: Correlator;
  readonly #sinks = new Map<CallNumber, CallSink>();
  #stderrTail: string[] = [];
  #closed: MoorageError | undefined;
  #ending = false;
  /** Resolves when the process has ended. */
  readonly closed: Promise<void>;

  constructor(options: PeerOptions) {
    this.#options = options;
    this.#correlator = new Correlator(options.mode, options.nonce);
    const { process } = options;
    const splitter = new LineSplitter(MAX_MESSAGE_BYTES);
    process.stdout.on('data', (chunk: Buffer) => {
      for (const line of splitter.push(chunk)) this.#line(line);
    });
    this.#logStderr();
    // EPIPE and destroyed streams end in `exited`, which settles the calls.
    for (const stream of [process.stdin, process.stdout, process.stderr]) stream.on('error', () => undefined);
    const drained = Promise.all([finished(process.stdout), finished(process.stderr)]);
    this.closed = process.exited.then(async (exit) => {
      // The last answers may still be in the pipe. A grandchild that holds it open must not hold us.
      const late = new Promise<void>((resolve) => setTimeout(resolve, DRAIN_MS).unref());
      await Promise.race([drained, late]);
      this.#close(exit);
    });
  }

  get inFlight(): number {
    return this.#correlator.inFlight;
  }

  get sessions(): ReadonlySet<string> {
    return this.#correlator.sessions;
  }

  get mode(): 'own' | 'shared' {
    return this.#options.mode;
  }

  attach(session: string): void {
    this.#correlator.attach(session);
  }

  /** A session of a shared process has ended: its calls are cancelled, its subscriptions given up. */
  detach(session: string): void {
    for (const message of this.#correlator.detach(session)) this.#write(message);
  }

  /** A client's request. The sink is settled exactly once, also when the process is gone already. */
  request(session: string, message: JsonRpcRequest, sink: CallSink): void {
    const refusal = this.#refusal();
    if (refusal) {
      sink.fail(refusal);
      return;
    }
    const { call, message: renumbered } = this.#correlator.request(session, message);
    this.#sinks.set(call.number, sink);
    this.#write(renumbered);
  }

  /** A request of the agent itself, such as a replayed `initialize`. @throws MoorageError when the process is gone. */
  ask(session: string, message: JsonRpcRequest): Promise<JsonRpcResponse> {
    return new Promise((resolve, reject) => {
      this.request(session, message, { open: false, message: () => undefined, answer: resolve, fail: reject });
    });
  }

  /** A client's notification, or its answer to a question of the server. Dropped when it concerns nothing here. */
  notify(session: string, message: JsonRpcMessage): void {
    if (isRequest(message)) throw new TypeError('A request needs a sink: use request().');
    if (isResponse(message)) {
      const answer = this.#correlator.answer(message);
      if (answer) this.#write(answer);
      return;
    }
    for (const notification of this.#correlator.notification(session, message)) this.#write(notification);
  }

  /** Says `notifications/initialized` in the clients' name (MCP, basic/lifecycle). */
  announceInitialized(): void {
    this.#write({ jsonrpc: '2.0', method: 'notifications/initialized' });
  }

  /** Ends the process: closes its stdin, then SIGTERM, then SIGKILL, each after a grace. Resolves when it is gone. */
  async end(): Promise<void> {
    if (this.#ending || this.#closed) return await this.closed;
    this.#ending = true;
    this.#options.process.stdin.end();
    const term = setTimeout(() => this.#options.process.kill('SIGTERM'), END_GRACE_MS);
    const kill = setTimeout(() => this.#options.process.kill('SIGKILL'), 2 * END_GRACE_MS);
    await this.closed;
    clearTimeout(term);
    clearTimeout(kill);
  }

  #refusal(): MoorageError | undefined {
    if (this.#closed) return this.#closed;
    if (this.#correlator.inFlight >= MAX_IN_FLIGHT) {
      return new MoorageError(
        'overloaded',
        `The server "${this.#options.server}" has ${MAX_IN_FLIGHT} calls in flight. Try again in a moment.`,
      );
    }
    if (this.#options.process.stdin.writableLength > MAX_UNREAD_BYTES) {
      return new MoorageError(
        'overloaded',
        `The server "${this.#options.server}" does not read its input. Try again in a moment.`,
      );
    }
    return undefined;
  }

  #write(message: JsonRpcMessage): void {
    if (!this.#closed && this.#options.process.stdin.writable)
      this.#options.process.stdin.write(`${JSON.stringify(message)}\n`);
  }

  #line(line: Line): void {
    const { log, server } = this.#options;
    if (line.type === 'overlong') {
      log.warn(`server ${server} wrote a line of ${line.bytes} bytes; at most ${MAX_MESSAGE_BYTES} are passed on`);
      this.#failOverlong(line);
      return;
    }
    let message: JsonRpcMessage;
    try {
      message = parseMessage(parseJson(line.text));
    } catch {
      log.server(server, `(stdout, not a JSON-RPC message) ${line.text.slice(0, 500)}`);
      return;
    }
    this.#route(this.#correlator.fromServer(message));
  }

  /** The id of a JSON-RPC answer stands near its start or its end; ours are plain numbers. */
  #failOverlong(line: Line & { type: 'overlong' }): void {
    const found = /"id"\s*:\s*(\d+)/.exec(line.head) ?? /"id"\s*:\s*(\d+)[^"]*$/.exec(line.tail);
    if (!found) return;
    const route = this.#correlator.fromServer({ jsonrpc: '2.0', id: Number(found[1]), result: {} });
    if (route.to !== 'answer') return;
    const error = new MoorageError(
      'server_failed',
      `The answer of the server "${this.#options.server}" is larger than ${MAX_MESSAGE_BYTES} bytes and was not passed on.`,
    );
    this.#take(route.call)?.fail(error);
  }

  #route(route: Route): void {
    switch (route.to) {
      case 'answer':
        void this.#settle(route.call, route.message);
        return;
      case 'call': {
        const sink = this.#sinks.get(route.call.number);
        if (sink?.open) sink.message(route.message);
        else this.#options.unasked([route.call.session], route.message);
        return;
      }
      case 'sessions':
        this.#options.unasked(route.sessions, route.message);
        return;
      case 'server':
        this.#write(route.message);
        return;
      case 'nobody':
        this.#options.log.debug(`server ${this.#options.server}: a message was dropped: ${route.reason}`);
        return;
    }
  }

  /** A tool's result is passed on only when what it wrote would survive the loss of the machine. */
  async #settle(call: Call, message: JsonRpcResponse): Promise<void> {
    const sink = this.#take(call);
    if (!sink) return;
    if (call.method === 'tools/call') {
      try {
        await this.#options.sync();
      } catch {
        sink.fail(lostAfterAnswer(this.#options.server));
        return;
      }
    }
    sink.answer(message);
  }

  #take(call: Call): CallSink | undefined {
    const sink = this.#sinks.get(call.number);
    this.#sinks.delete(call.number);
    return sink;
  }

  #logStderr(): void {
    const { process, log, server } = this.#options;
    const splitter = new LineSplitter(64 * 1024);
    process.stderr.on('data', (chunk: Buffer) => {
      for (const line of splitter.push(chunk)) {
        const text = line.type === 'line' ? line.text : `${line.head}… (${line.bytes} bytes)`;
        log.server(server, text);
        this.#stderrTail = [...this.#stderrTail, text].slice(-STDERR_TAIL_LINES);
      }
    });
  }

  #close(exit: ProcessExit): void {
    const how = exit.signal === null ? `exited with code ${exit.code}` : `was ended by ${exit.signal}`;
    const { server, log } = this.#options;
    if (!this.#ending) {
      const tail =
        this.#stderrTail.length > 0
          ? `; its last stderr lines:\n${this.#stderrTail.join('\n')}`
          : ' without a word on stderr';
      log.warn(`server ${server} ${how}${tail}`);
    }
    this.#closed = new MoorageError('session_unknown', `The process of server "${server}" ${how}.`);
    for (const call of this.#correlator.abandon()) {
      this.#take(call)?.fail(
        new MoorageError(
          'outcome_unknown',
          `The process of server "${server}" ${how} while "${call.method}" was running. Outcome unknown: check before you repeat it.`,
          { cause: 'server_exited', exitCode: exit.code, signal: exit.signal, retryable: false },
        ),
      );
    }
  }
}

/** Resolves when a stream has ended or was destroyed. */
function finished(stream: Readable): Promise<void> {
  return new Promise((resolve) => {
    stream.once('end', resolve);
    stream.once('close', resolve);
  });
}

function lostAfterAnswer(server: string): MoorageError {
  return new MoorageError(
    'outcome_unknown',
    `The machine of server "${server}" was lost just after it answered. Outcome unknown: what it wrote may be gone. Check before you repeat it.`,
    { cause: 'machine_gone', retryable: false },
  );
}
