/** One process of the benchmark's server, and the time that it takes to answer. */
import type { Lease } from '../origin/supervisor/slot.ts';
import type { ServerProcess } from '../origin/vm/driver.ts';

export class Server {
  readonly process: ServerProcess;
  #last = 0;
  #answered: (() => void) | undefined;

  constructor(process: ServerProcess) {
    this.process = process;
    process.stderr.resume();
    for (const stream of [process.stdin, process.stdout, process.stderr]) stream.on('error', () => undefined);
    // One call at a time: the first byte that comes is its answer's.
    process.stdout.on('data', () => this.#answered?.());
  }

  /** Resolves at the first byte of the answer. */
  async ask(method: string, params: object): Promise<void> {
    this.#last += 1;
    const answered = new Promise<void>((resolve) => {
      this.#answered = resolve;
    });
    this.process.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: this.#last, method, params })}\n`);
    const gone = this.process.exited.then(({ code, signal }) => {
      throw new Error(`The server ended (${code ?? signal}) before it answered.`);
    });
    await Promise.race([answered, gone]);
  }

  async initialize(): Promise<void> {
    const clientInfo = { name: 'bench', version: '1' };
    await this.ask('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo });
  }

  /** Calls a tool; its machine is awake. */
  async call(name: 'count' | 'dirty', args: object = {}): Promise<void> {
    await this.ask('tools/call', { name, arguments: args });
  }
}

/** Runs `act` with a lease. Resolves with how long it took to get one, and how long `act` took, in milliseconds. */
export async function timed(
  lease: () => Promise<Lease>,
  act: (lease: Lease) => Promise<void>,
): Promise<{ began: number; leased: number; answered: number }> {
  const began = performance.now();
  const held = await lease();
  const leased = performance.now();
  try {
    await act(held);
    return { began, leased, answered: performance.now() };
  } finally {
    held.release();
  }
}
