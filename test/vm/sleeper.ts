/** A machine with one scripted server in it, for tests of sleep: how it is described, and how one speaks to the server. */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { MachineImage, MachineSpec, RunningMachine, ServerProcess } from '../../origin/vm/driver.ts';

const SCRIPT = readFileSync(new URL('../support/scripted-server.mjs', import.meta.url), 'utf8');

export const sleeperSpec = (dir: string, image: MachineImage): MachineSpec => ({
  key: 'sleeper',
  dir,
  image,
  memoryMiB: 192,
  cpus: 1,
  diskMiB: 128,
  hostname: 'sleeper',
});

/** The server's process: a tool call by its action, as text. */
export class Server {
  readonly process: ServerProcess;
  readonly #waiting = new Map<number, (text: string) => void>();
  static #last = 0;

  constructor(process: ServerProcess) {
    this.process = process;
    process.stderr.resume();
    for (const stream of [process.stdin, process.stdout, process.stderr]) stream.on('error', () => undefined);
    const lines = createInterface({ input: process.stdout });
    // It repeats what its input says.
    lines.on('error', () => undefined);
    lines.on('line', (line) => {
      const { id, result } = JSON.parse(line) as { id: number; result: { content: { text: string }[] } };
      this.#waiting.get(id)?.(result.content[0]?.text ?? '');
    });
  }

  static async start(machine: RunningMachine): Promise<Server> {
    const argv = ['node', '--input-type=module', '-e', SCRIPT];
    return new Server(await machine.spawn({ argv, env: {}, cwd: '/data' }));
  }

  ask(action: string, args: object = {}): Promise<string> {
    Server.#last += 1;
    const id = Server.#last;
    const params = { name: 'do', arguments: { action, ...args } };
    this.process.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method: 'tools/call', params })}\n`);
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }
}
