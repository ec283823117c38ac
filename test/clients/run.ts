/**
 * Owns the round of all clients against a set of servers. A client that fails is a row in the table, not an exception.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { startProxy } from '../conformance/proxy.ts';
import { type Call, type Outcome, type RunOptions, Unavailable } from './client.ts';
import type { Contender } from './contenders.ts';
import { eraOf } from './era.ts';

/** A server, and what clients ask of it. */
export interface Target {
  readonly name: string;
  /** Its Streamable HTTP endpoint. */
  readonly url: string;
  /** Whether clients of the older transport find `/sse` where `url` ends in `/mcp`; without it they are left out. */
  readonly sse: boolean;
  readonly call: Call;
  /** What the call's answer has to be. */
  readonly expected: RegExp;
}

export interface Verdict {
  readonly client: string;
  readonly version: string;
  readonly server: string;
  readonly state: 'ok' | 'failed' | 'skipped';
  /** The revision on the wire. @see eraOf */
  readonly era: string | undefined;
  /** What the client did, or what went wrong, in a few words. */
  readonly told: string;
  readonly milliseconds: number;
}

/** One run of one client, in milliseconds; a machine that is emulated may be slow. */
const patienceMs = 120_000;

/** Clients go one after another, so that a slow one does not slow another down. */
export async function runAll(
  contenders: readonly Contender[],
  targets: readonly Target[],
  onVerdict: (verdict: Verdict) => void,
  options: RunOptions = {},
): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  for (const contender of contenders) {
    for (const target of targets) {
      if (contender.endpoint === 'sse' && !target.sse) continue;
      const verdict = await judge(contender, target, options);
      verdicts.push(verdict);
      onVerdict(verdict);
    }
  }
  return verdicts;
}

async function judge(contender: Contender, target: Target, options: RunOptions): Promise<Verdict> {
  const proxy = await startProxy(target.url.replace(/\/mcp$/, `/${contender.endpoint}`));
  const started = performance.now();
  const outcome = await within(contender.run(proxy.url, target.call, options)).then(
    (told) => check(told, target),
    (error: unknown) => ({ state: error instanceof Unavailable ? 'skipped' : 'failed', told: reason(error) }) as const,
  );
  const milliseconds = Math.round(performance.now() - started);
  const era = eraOf(proxy.exchanges);
  await proxy.close();
  return { client: contender.name, version: contender.version, server: target.name, era, milliseconds, ...outcome };
}

function check({ tools, text }: Outcome, { call, expected }: Target): Pick<Verdict, 'state' | 'told'> {
  if (tools === undefined || text === undefined) return { state: 'ok', told: 'connects' };
  if (!tools.includes(call.tool)) return { state: 'failed', told: `lists ${tools.length}, and not ${call.tool}` };
  if (!expected.test(text)) return { state: 'failed', told: `the call answers ${text}` };
  return { state: 'ok', told: `lists ${tools.length}, calls ${call.tool}` };
}

async function within(run: Promise<Outcome>): Promise<Outcome> {
  const patience = new AbortController();
  const late = sleep(patienceMs, undefined, { signal: patience.signal, ref: false }).then(() => {
    throw new Error(`no end after ${patienceMs} ms`);
  });
  try {
    return await Promise.race([run, late]);
  } finally {
    late.catch(() => {});
    patience.abort();
  }
}

/** The last line that says something: what Python and the commands print before it is the way there. */
function reason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const lines = text.split('\n').filter((line) => /\w/.test(line));
  const telling = lines.find((line) => /\bError\b|error:/i.test(line)) ?? lines.at(-1) ?? text;
  return telling.replace(/^\W+/, '').slice(0, 300);
}
