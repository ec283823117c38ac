/** Figures out of samples, and how they are shown. Pure. */

/** One run. Milliseconds, by what took them. */
export interface Sample {
  /** Ours: QEMU's start and state, files, our code. */
  readonly host: Readonly<Record<string, number>>;
  /** Between a question to the guest and its answer. */
  readonly guest: Readonly<Record<string, number>>;
}

export interface Target {
  /** A part of the host's share, or all of it. */
  readonly of: string;
  readonly ms: number;
}

export interface Figure {
  readonly name: string;
  readonly runs: number;
  /** Medians, in milliseconds; so parts need not add up to the whole. */
  readonly total: number;
  readonly least: number;
  readonly most: number;
  readonly host: number;
  readonly guest: number;
  readonly parts: { readonly host: Readonly<Record<string, number>>; readonly guest: Readonly<Record<string, number>> };
  readonly targets: readonly (Target & { readonly measured: number; readonly least: number; readonly met: boolean })[];
}

/** What something takes, in bytes. */
export interface Size {
  readonly name: string;
  readonly bytes: number;
  readonly note: string;
}

export const WHOLE = "the host's part";

/** The middle one; of an even number the mean of the two in the middle. NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const upper = sorted[Math.floor(middle)] ?? Number.NaN;
  return Number.isInteger(middle) ? (upper + (sorted[middle - 1] ?? Number.NaN)) / 2 : upper;
}

const sum = (parts: Readonly<Record<string, number>>): number => Object.values(parts).reduce((a, b) => a + b, 0);

/** The figure of these runs, which all have the same parts. */
export function figure(name: string, samples: readonly Sample[], targets: readonly Target[] = []): Figure {
  const totals = samples.map(({ host, guest }) => sum(host) + sum(guest));
  const medians = (of: 'host' | 'guest') =>
    Object.fromEntries(
      Object.keys(samples[0]?.[of] ?? {}).map((part) => [part, median(samples.map((sample) => sample[of][part] ?? 0))]),
    );
  const host = median(samples.map((sample) => sum(sample.host)));
  const parts = { host: medians('host'), guest: medians('guest') };
  return {
    name,
    runs: samples.length,
    total: median(totals),
    least: Math.min(...totals),
    most: Math.max(...totals),
    host,
    guest: median(samples.map((sample) => sum(sample.guest))),
    parts,
    targets: targets.map((target) => {
      const values = samples.map((sample) =>
        target.of === WHOLE ? sum(sample.host) : (sample.host[target.of] ?? Number.NaN),
      );
      const measured = median(values);
      return { ...target, measured, least: Math.min(...values), met: measured <= target.ms };
    }),
  };
}

/** `3 times` of one median in another. */
export function ratio(figures: readonly Figure[], one: string, other: string): string {
  const total = (name: string) => figures.find((found) => found.name === name)?.total ?? Number.NaN;
  return `${one} : ${other} = 1 : ${(total(other) / total(one)).toFixed(1)}`;
}

export const ms = (value: number): string =>
  value >= 1_000 ? `${(value / 1_000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;

export function bytes(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} MB`;
  return value >= 1e3 ? `${(value / 1e3).toFixed(1)} kB` : `${value.toFixed(0)} B`;
}

const share = (whole: number, parts: Readonly<Record<string, number>>): string =>
  Object.keys(parts).length === 0 ? '–' : `${ms(whole)}: ${list(parts)}`;

const list = (parts: Readonly<Record<string, number>>): string =>
  Object.entries(parts)
    .map(([name, value]) => `${name} ${ms(value)}`)
    .join(', ');

const targetOf = ({ of, ms: most, measured, least, met }: Figure['targets'][number]): string =>
  `${of} ${ms(most)}: ${met ? 'met' : 'missed'} (${ms(measured)}, at best ${ms(least)})`;

/** A table in Markdown. */
export function tableOf(figures: readonly Figure[]): string {
  const rows = figures.map((one) =>
    [
      one.name,
      `${ms(one.total)} (${ms(one.least)} – ${ms(one.most)})`,
      String(one.runs),
      share(one.host, one.parts.host),
      share(one.guest, one.parts.guest),
      one.targets.map(targetOf).join('; ') || '–',
    ].join(' | '),
  );
  return [
    '| | Median (least – most) | Runs | Ours, on the host | The guest’s | Target |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows.map((row) => `| ${row} |`),
  ].join('\n');
}

/** A table in Markdown. */
export function sizesOf(sizes: readonly Size[]): string {
  const rows = sizes.map(({ name, bytes: size, note }) => `| ${name} | ${bytes(size)} | ${note} |`);
  return ['| | Size | |', '| --- | --- | --- |', ...rows].join('\n');
}
