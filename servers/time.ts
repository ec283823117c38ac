/**
 * A sample edge server: the time in any zone. Stateless, and answered in the Worker without an origin.
 *
 * Zones are IANA names, as `Intl` of the runtime knows them.
 */
import { McpServer } from '@modelcontextprotocol/server';
import { z } from 'zod';

const zone = z
  .string()
  .max(64)
  .refine(isZone, { error: (issue) => `"${String(issue.input)}" is no IANA time zone such as "Europe/Berlin"` });

export default function timeServer(): McpServer {
  const server = new McpServer({ name: 'time', version: '1.0.0' });

  server.registerTool(
    'get_current_time',
    {
      title: 'Current time',
      description: 'The current time in a time zone.',
      inputSchema: z.object({ timezone: zone.describe('IANA time zone, such as "America/New_York" or "UTC"') }),
      annotations: { readOnlyHint: true },
    },
    ({ timezone }) => answer(describe(new Date(), timezone)),
  );

  server.registerTool(
    'convert_time',
    {
      title: 'Convert time',
      description: "Today's time of day in one time zone, told in another.",
      inputSchema: z.object({
        source_timezone: zone.describe('IANA time zone of the given time'),
        time: z
          .string()
          .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'write 24-hour time as HH:MM')
          .describe('24-hour time, HH:MM'),
        target_timezone: zone.describe('IANA time zone to convert to'),
      }),
      annotations: { readOnlyHint: true },
    },
    ({ source_timezone, time, target_timezone }) => {
      const instant = instantOf(new Date(), time, source_timezone);
      const source = describe(instant, source_timezone);
      const target = describe(instant, target_timezone);
      const hours = (offsetOf(instant, target_timezone) - offsetOf(instant, source_timezone)) / 3_600_000;
      return answer({ source, target, time_difference: `${hours >= 0 ? '+' : ''}${hours}h` });
    },
  );

  return server;
}

const answer = (value: unknown) => ({ content: [{ type: 'text' as const, text: JSON.stringify(value, null, 2) }] });

function isZone(name: string): boolean {
  try {
    formatOf(name);
    return true;
  } catch {
    // RangeError is how Intl says that it does not know a zone.
    return false;
  }
}

/** A formatter costs far more to make than to use. Some 600 zones exist, under more spellings than can be kept. */
const formats = new Map<string, Intl.DateTimeFormat>();
const MAX_FORMATS = 1000;

/** @throws RangeError when `Intl` does not know the zone. */
function formatOf(timezone: string): Intl.DateTimeFormat {
  const known = formats.get(timezone);
  if (known) return known;
  const format = new Intl.DateTimeFormat('en', {
    timeZone: timezone,
    hourCycle: 'h23',
    weekday: 'long',
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
  });
  if (formats.size >= MAX_FORMATS) formats.clear();
  formats.set(timezone, format);
  return format;
}

/** Milliseconds by which the wall clock of `timezone` is ahead of UTC at `instant`. */
function offsetOf(instant: Date, timezone: string): number {
  const parts = formatOf(timezone).formatToParts(instant);
  const part = (type: Intl.DateTimeFormatPartTypes) => Number(parts.find((p) => p.type === type)?.value);
  const wall = Date.UTC(part('year'), part('month') - 1, part('day'), part('hour'), part('minute'), part('second'));
  return wall - Math.floor(instant.getTime() / 1000) * 1000;
}

/** The instant at which the clock of `timezone` shows `time` (HH:MM) on the day that it is there at `now`. */
function instantOf(now: Date, time: string, timezone: string): Date {
  const today = new Date(now.getTime() + offsetOf(now, timezone)).toISOString().slice(0, 10);
  const wall = Date.parse(`${today}T${time}:00Z`);
  // The offset at the instant sought may differ from the one at a first guess (a clock change in between).
  const guess = new Date(wall - offsetOf(new Date(wall), timezone));
  return new Date(wall - offsetOf(guess, timezone));
}

const weekdayOf = (instant: Date, timezone: string): string =>
  formatOf(timezone)
    .formatToParts(instant)
    .find((part) => part.type === 'weekday')?.value ?? '';

function describe(instant: Date, timezone: string): { timezone: string; datetime: string; day_of_week: string } {
  const offset = offsetOf(instant, timezone);
  const minutes = Math.abs(offset) / 60_000;
  const two = (n: number) => String(Math.floor(n)).padStart(2, '0');
  const local = new Date(instant.getTime() + offset).toISOString().slice(0, 19);
  return {
    timezone,
    datetime: `${local}${offset < 0 ? '-' : '+'}${two(minutes / 60)}:${two(minutes % 60)}`,
    day_of_week: weekdayOf(instant, timezone),
  };
}
