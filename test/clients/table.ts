/**
 * Owns the matrix as Markdown, and its place in documents: between two markers, so that the rest stays a person's.
 */
import type { Verdict } from './run.ts';

const begin = '<!-- clients:begin -->';
const end = '<!-- clients:end -->';

/** One row a client, one column a server; `brief` leaves out what each client did. */
export function toMarkdown(verdicts: readonly Verdict[], { brief = false } = {}): string {
  const servers = [...new Set(verdicts.map(({ server }) => server))];
  const clients = Map.groupBy(verdicts, ({ client }) => client);
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    row(['Client', 'Version', 'Speaks', ...servers]),
    row(['---', '---', '---', ...servers.map(() => '---')]),
    ...[...clients].map(([client, its]) => {
      const eras = [...new Set(its.flatMap(({ era }) => era ?? []))];
      const cells = servers.map((server) =>
        cell(
          its.find((verdict) => verdict.server === server),
          brief,
        ),
      );
      return row([client, its[0]?.version ?? '', eras.join('; ') || '–', ...cells]);
    }),
  ].join('\n');
}

const MARKS = { ok: '✓', failed: '✗', skipped: 'not run' } as const;

function cell(verdict: Verdict | undefined, brief: boolean): string {
  if (!verdict) return '–';
  if (brief) return MARKS[verdict.state];
  const told = verdict.told.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|').replaceAll('<', '&lt;');
  return `${MARKS[verdict.state]} ${told}`;
}

/** The document with `text` between its markers, or undefined when it has none. */
export function between(document: string, text: string): string | undefined {
  const from = document.indexOf(begin);
  const to = document.indexOf(end);
  if (from === -1 || to < from) return undefined;
  return `${document.slice(0, from + begin.length)}\n${text}\n${document.slice(to)}`;
}
