/**
 * Owns which characters of a text are hidden from whoever reads it, or drive a terminal, and what becomes of them. Pure.
 *
 * The attacks: instructions to a model in tag characters or runs of zero-width ones, which its user does not see; text that
 * reads in another order than it is written (CVE-2021-42574); escape sequences that rewrite a screen (ECMA-48).
 *
 * What languages and emoji need stays: joiners within emoji and in scripts that use them, one variation selector where one may
 * be, the three flags that are spelt with tags, direction marks in texts with letters written from right to left. Letters,
 * digits, punctuation, tabs and line breaks are never touched.
 */

export type Cleaning = 'strip' | 'mark';

/** Escape sequences with an end (ECMA-48, 5.3-5.6 and 8.3); one without loses its first character alone. */
const SEQUENCE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c)|\u001b[ -/]*[0-Z\\^-~]/g;

/** The flags of England, Scotland and Wales (Unicode emoji, RGI tag sequences), or one hidden character. */
const HIDDEN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  // biome-ignore lint/suspicious/noMisleadingCharacterClass: each character is meant by itself
  /\u{1f3f4}\u{e0067}\u{e0062}(?:\u{e0065}\u{e006e}\u{e0067}|\u{e0073}\u{e0063}\u{e0074}|\u{e0077}\u{e006c}\u{e0073})\u{e007f}|[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

/**
 * The same in UTF-16 units of a JSON text, as they are and escaped. They say yes too often, never too rarely, and are apart
 * because each alone is several times faster than all in one.
 */
const LOW =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad]/;
const HIGH =
  // biome-ignore lint/suspicious/noMisleadingCharacterClass: each character is meant by itself
  /[\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\udb40-\udb43\ud834]/;
const ESCAPED =
  /\\[bf]|\\u(?:00(?:[01]|7[fF]|[89]|[aA][dD])|034|061|11[56]|17[bB]|180|20[026]|316|[fF][eE]|[fF]{2}|[dD](?:834|[bB]4))/;

/** Whether a JSON text may hold anything that `cleaned` would change. */
export const isSuspect = (json: string): boolean =>
  LOW.test(json) || HIGH.test(json) || (json.includes('\\') && ESCAPED.test(json));

/** The text without what is hidden, or with it made visible. */
export function cleaned(text: string, how: Cleaning): string {
  const plain = how === 'strip' ? text.replace(SEQUENCE, '') : text;
  let rightToLeft: boolean | undefined;
  return plain.replace(HIDDEN, (found, offset: number) => {
    // Found out once: a text may hold nothing but marks.
    if (MARK.test(found)) rightToLeft ??= RIGHT_TO_LEFT.test(plain);
    if (MARK.test(found) ? rightToLeft : isLegitimate(plain, found, offset)) return found;
    if (how === 'strip') return '';
    return `⟦U+${(found.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟧`;
  });
}

const EMOJI = /\p{Extended_Pictographic}|\p{Emoji_Modifier}|\ufe0f/u;
const PICTURE = /\p{Extended_Pictographic}/u;
const KEYCAP = /[0-9#*]/;
/** Hidden ones after which a joiner may stand. */
const SELECTOR = /[\u180b-\u180d\u180f\ufe0f]/;
/** Scripts whose letters join, or are kept from joining. */
const JOINING =
  /(?=[\p{L}\p{M}])[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Mongolian}\p{Script=Nko}\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Gurmukhi}\p{Script=Gujarati}\p{Script=Oriya}\p{Script=Tamil}\p{Script=Telugu}\p{Script=Kannada}\p{Script=Malayalam}\p{Script=Sinhala}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}]/u;
/** What a standardized variation or an ideographic one may follow (Unicode, 23.4). */
const VARIED = /[\p{Script=Han}\p{Sm}\p{Script=Myanmar}\p{Script=Phags_Pa}]/u;
const HAN = /\p{Script=Han}/u;
const MONGOLIAN = /(?=\p{L})\p{Script=Mongolian}/u;
const MARK = /[\u200e\u200f\u061c]/;
const RIGHT_TO_LEFT =
  /(?=\p{L})[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;

function isLegitimate(text: string, found: string, offset: number): boolean {
  const code = found.codePointAt(0) ?? 0;
  if (code === 0x1f3f4) return true;
  const before = characterBefore(text, offset);
  const after = characterAt(text, offset + found.length);
  if (code === 0x200c || code === 0x200d) {
    // A selector that does not stay itself holds nothing.
    if (SELECTOR.test(before) && !isLegitimate(text, before, offset - before.length)) return false;
    return JOINING.test(before) || (code === 0x200d && EMOJI.test(before) && PICTURE.test(after));
  }
  if (code === 0xfe0e || code === 0xfe0f) {
    return KEYCAP.test(before) ? after === '\u20e3' : /\p{Emoji}/u.test(before) || VARIED.test(before);
  }
  if (code >= 0xfe00 && code <= 0xfe0d) return VARIED.test(before);
  if (code >= 0xe0100 && code <= 0xe01ef) return HAN.test(before);
  if (code >= 0x180b && code <= 0x180f && code !== 0x180e) return MONGOLIAN.test(before);
  if (code === 0x115f) return /[\u1161-\u11ff]/.test(after);
  return code === 0x1160 && /[\u1100-\u115e]/.test(before);
}

const characterAt = (text: string, at: number): string => {
  const code = text.codePointAt(at);
  return code === undefined ? '' : String.fromCodePoint(code);
};

function characterBefore(text: string, at: number): string {
  const pair = at >= 2 ? characterAt(text, at - 2) : '';
  return pair.length === 2 ? pair : text.slice(Math.max(0, at - 1), at);
}
