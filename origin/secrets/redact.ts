/**
 * Keeps values of secrets out of what a server prints. Pure.
 *
 * Found are the value itself, each of its longer lines, and their common encodings: JSON strings, percent-encoding, base64
 * (also within a longer text, at any offset, in both alphabets) and hexadecimal. A program that wants to can always tell
 * what it knows; this is against accidents: dumps of the environment, request headers in error texts, debug logs.
 * In messages only texts are changed (values and names of members, below the message's own members), never the JSON.
 */
import { isExactNumber } from '../../shared/exact-json.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

export interface NamedValue {
  readonly name: string;
  readonly value: string;
}

/** What is shorter would hit ordinary words. */
const MIN_NEEDLE = 8;
/** Of a text that was cut at its end: as much of a value's beginning tells something. */
const MIN_CUT = 4;

export class Redactor {
  readonly #names = new Map<string, string>();
  readonly #pattern: RegExp | undefined;

  constructor(values: readonly NamedValue[]) {
    for (const { name, value } of values) {
      for (const needle of needlesOf(value)) if (!this.#names.has(needle)) this.#names.set(needle, name);
    }
    // The longest first: of two that begin alike the whole one is meant.
    const sorted = [...this.#names.keys()].sort((a, b) => b.length - a.length);
    this.#pattern = sorted.length > 0 ? new RegExp(sorted.map(escaped).join('|'), 'g') : undefined;
  }

  get isEmpty(): boolean {
    return this.#pattern === undefined;
  }

  text(text: string): string {
    if (this.#pattern === undefined || text.length < MIN_NEEDLE) return text;
    return text.replace(this.#pattern, (found) => placeholder(this.#names.get(found) ?? ''));
  }

  /** As `text`, of the beginning of something longer: half a value at its end goes too. */
  cut(text: string): string {
    const whole = this.text(text);
    for (const [needle, name] of this.#names) {
      for (let length = Math.min(needle.length - 1, whole.length); length >= MIN_CUT; length -= 1) {
        if (whole.endsWith(needle.slice(0, length))) return `${whole.slice(0, -length)}${placeholder(name)}`;
      }
    }
    return whole;
  }

  /** Changes the message itself, which nobody else has yet. Without recursion: a server chooses how deep it is. */
  message(message: JsonRpcMessage): JsonRpcMessage {
    if (this.#pattern === undefined) return message;
    const inside: unknown[] = [message];
    // The protocol's own members stay as they are, be a value what it may.
    const shallow = new Set<unknown>([message]);
    for (let container = inside.pop(); container !== undefined; container = inside.pop()) {
      const members = container as Record<string, unknown>;
      for (const key of Object.keys(members)) {
        const value = members[key];
        const isOwn = shallow.has(container);
        if (typeof value === 'object' && value !== null && !isExactNumber(value)) inside.push(value);
        else if (!isOwn) members[key] = this.#leaf(value);
        if (isOwn || Array.isArray(container)) continue;
        const renamed = this.text(key);
        if (renamed === key) continue;
        members[renamed] = members[key];
        delete members[key];
      }
    }
    return message;
  }

  #leaf(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    const isNumber = typeof value === 'number' || isExactNumber(value);
    const name = isNumber ? this.#names.get(JSON.stringify(value)) : undefined;
    return name === undefined ? value : placeholder(name);
  }
}

const escaped = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
const placeholder = (name: string): string => `[secret ${name}]`;

/** Every text that gives a value away. */
function needlesOf(value: string): Set<string> {
  const lines = value.split(/\r?\n/).map((line) => line.trim());
  const needles = [value, ...lines].filter((text) => text.length >= MIN_NEEDLE).flatMap(encodingsOf);
  return new Set(needles.filter((needle) => needle.length >= MIN_NEEDLE));
}

function encodingsOf(text: string): string[] {
  const json = JSON.stringify(text).slice(1, -1);
  const ascii = json.replaceAll(/[^\x20-\x7e]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
  const percent = encodeURIComponent(text.toWellFormed());
  // RFC 3986 leaves these out as encodeURIComponent does not; forms write a space as "+".
  const strict = percent.replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
  const urls = [percent, strict, strict.replaceAll('%20', '+')];
  const lower = urls.map((url) => url.replaceAll(/%[0-9A-F]{2}/g, (octet) => octet.toLowerCase()));
  const hex = Buffer.from(text).toString('hex');
  return [
    text,
    json,
    json.replaceAll('/', '\\/'),
    ascii,
    // A JSON text in a JSON text, as tool results often are.
    JSON.stringify(json).slice(1, -1),
    ...urls,
    ...lower,
    ...base64Within(Buffer.from(text)),
    hex,
    hex.toUpperCase(),
  ];
}

/** Base64 of any text that holds these bytes: of each of the three offsets the characters that the bytes alone decide. */
function base64Within(bytes: Buffer): string[] {
  return [0, 1, 2].flatMap((offset) => {
    const encoded = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const first = Math.ceil((offset * 8) / 6);
    const end = Math.floor(((offset + bytes.length) * 8) / 6);
    const core = encoded.slice(first, end);
    return [core, core.replaceAll('+', '-').replaceAll('/', '_')];
  });
}
