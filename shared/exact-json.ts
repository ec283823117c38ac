/**
 * Owns JSON that is written again as it was read, also where a double cannot hold its numbers: identifiers of 64 bits,
 * nanoseconds, amounts, bounds in schemas. `JSON.parse` would round them (9007199254740993) or lose them (1e400 is written
 * as null). Pure.
 *
 * Such a number becomes what `JSON.rawJSON` gives (ECMAScript, "JSON.parse source text access"), which `JSON.stringify`
 * writes as it stood; every other value is what `JSON.parse` makes of it. So this is for what passes through, and not for
 * programs that calculate.
 */

/** A number that is kept as its text. */
export interface ExactNumber {
  readonly rawJSON: string;
}
// The compiler's library does not know these two yet.
const { rawJSON, isRawJSON } = JSON as unknown as {
  /** Absent in Node 20. */
  rawJSON?: (text: string) => ExactNumber;
  isRawJSON?: (value: unknown) => value is ExactNumber;
};

/** Longer texts are read as ever: looking at each number costs about a second for ten megabytes of them. */
const MAX_EXACT = 1024 * 1024;
/** Where a value may stand, sixteen digits or an exponent: fewer digits without one always fit. */
const SUSPECT = /(?<=[[:,\s])-?(?:[\d.]{16}|\d+(?:\.\d+)?[eE])/;
/** Digits that are compared. Nothing that long is a double's shortest form. */
const MAX_COMPARED = 64;

/** The value of a JSON text. @throws SyntaxError. */
export function parseExactly(text: string): unknown {
  const plain = !rawJSON || text.length > MAX_EXACT || !SUSPECT.test(text);
  return plain ? JSON.parse(text) : JSON.parse(text, exactly);
}

/** Whether a value is a number that is kept as its text. */
export const isExactNumber = (value: unknown): value is ExactNumber => isRawJSON?.(value) ?? false;

/** A value that calculations take: what is kept as text becomes the nearest number. */
export const roundedOf = (value: unknown): unknown => (isRawJSON?.(value) ? Number(value.rawJSON) : value);

function exactly(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== 'number' || source === undefined) return value;
  return isSameNumber(source, String(value)) ? value : rawJSON?.(source);
}

/** Whether two decimal texts are the same number: 1.0 and 1, 1E2 and 100. */
const isSameNumber = (a: string, b: string): boolean =>
  a === b || (a.length <= MAX_COMPARED && canonical(a) === canonical(b));

/** Digits without zeros around them, and the power of ten that they stand for. */
function canonical(text: string): string {
  const [mantissa = '', power = '0'] = text.toLowerCase().split('e');
  const [whole = '', fraction = ''] = mantissa.replace('-', '').split('.');
  const digits = (whole + fraction).replace(/^0+/, '');
  const significant = digits.replace(/0+$/, '');
  if (significant === '') return '0';
  const sign = mantissa.startsWith('-') ? '-' : '';
  return `${sign}${significant}e${Number(power) - fraction.length + digits.length - significant.length}`;
}
