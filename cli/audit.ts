/** Owns `moorage audit`: what was denied, done and administered at an edge, and whether anybody changed the record of it. */
import { type AuditEntry, auditPage, auditText, brokenAt } from '../shared/audit.ts';
import { adminOf } from './admin.ts';
import { type Command, textOf } from './command.ts';
import { sinceOf } from './duration.ts';
import { table } from './table.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `audit [--since TIME] [--json]

Shows what was denied, who logged in, and what was done with tokens and administration at the router that runs here, or at
one elsewhere. Says so, and fails, when records were changed or are missing.

  --since TIME  not older than this: 30m, 12h, 7d (default: everything that is kept)
  --url URL     the router is there; a token with the scope "admin" is read from MOORAGE_TOKEN
  --json        one record a line, for export
`,
  options: { since: { type: 'string' }, url: { type: 'string' }, json: { type: 'boolean', default: false } },
  run: async (input) => {
    if (input.positionals.length > 0) throw new UsageError('"moorage audit" takes no arguments.');
    const since = sinceOf(textOf(input, 'since'), Date.now());
    const client = await adminOf({ config: input.config, state: input.state, url: textOf(input, 'url') });
    const rows: string[][] = [];
    let broken: number | null = null;
    let last = '';
    for (let after: number | null = 0; after !== null; ) {
      const page = auditPage.parse(await client.get(`/audit?after=${after}&since=${since}`));
      broken ??= last !== '' && page.entries.length > 0 && page.before !== last ? (page.entries[0]?.n ?? 0) : null;
      broken ??= await brokenAt(page);
      last = page.entries.at(-1)?.hash ?? last;
      for (const entry of page.entries) {
        if (input.values.json) process.stdout.write(`${JSON.stringify(exported(entry))}\n`);
        else rows.push(row(entry));
      }
      after = page.next;
    }
    if (!input.values.json)
      process.stdout.write(table(['TIME', 'KIND', 'WHAT', 'WHO', 'SERVER', 'FROM', 'TIMES'], rows));
    if (broken === null) return 0;
    process.stderr.write(`Record ${broken} does not follow from those before it: the audit was tampered with.\n`);
    return 1;
  },
};

const exported = ({ n, text, hash }: AuditEntry): object => ({ n, ...(JSON.parse(text) as object), hash });

function row({ text }: AuditEntry): string[] {
  const { at, kind, action, subject = '', server = '', address = '', count = 1 } = auditText.parse(JSON.parse(text));
  return [new Date(at).toISOString().slice(0, 19), kind, action, subject, server, address, String(count)];
}
