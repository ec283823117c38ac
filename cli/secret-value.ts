/** Owns how a value that nobody may see gets into a command: from a pipe, or typed at the terminal without being shown. */
import { UsageError } from './usage.ts';

const MAX_BYTES = 64 * 1024;
const ENTER: ReadonlySet<string> = new Set(['\r', '\n']);
const CTRL_C = '\u0003';
const BACKSPACE: ReadonlySet<string> = new Set(['\b', '\u007f']);

/** The value, without the line break that ends it. @throws UsageError when there is none. */
export async function readValue(prompt: string): Promise<string> {
  const value = process.stdin.isTTY ? await typed(prompt) : await piped();
  if (value === '') throw new UsageError('No value: give it on standard input, or type it when you are asked.');
  return value;
}

async function piped(): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > MAX_BYTES) throw new UsageError(`A value may have ${MAX_BYTES} bytes at most.`);
    parts.push(part);
  }
  return Buffer.concat(parts)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}

function typed(prompt: string): Promise<string> {
  const { stdin, stderr } = process;
  stderr.write(prompt);
  stdin.setRawMode(true);
  stdin.setEncoding('utf8');
  return new Promise((resolve, reject) => {
    let value = '';
    const done = (act: () => void) => {
      stdin.setRawMode(false);
      stdin.pause();
      stdin.off('data', take);
      stderr.write('\n');
      act();
    };
    // A paste comes in one piece.
    const take = (text: string) => {
      for (const char of text) {
        if (ENTER.has(char)) return done(() => resolve(value));
        if (char === CTRL_C) return done(() => reject(new UsageError('Nothing was changed.')));
        value = BACKSPACE.has(char) ? value.slice(0, -1) : value + char;
      }
    };
    stdin.on('data', take);
  });
}
