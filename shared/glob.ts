/**
 * Owns globs: patterns in which `*` stands for any characters, and lists of them in which `!` takes away. Pure.
 *
 * Everything else in a pattern is itself. Names are compared character by character: upper and lower case differ, and so do
 * characters that merely look alike (Unicode is not normalised).
 */

/**
 * Whether `name` has the form of `pattern`. Greedy matching of the pieces between stars needs no backtracking, so no
 * pattern and no name can make it slow.
 */
export function matchesGlob(name: string, pattern: string): boolean {
  const pieces = pattern.split('*');
  const [first = '', ...rest] = pieces;
  if (rest.length === 0) return name === pattern;
  const last = rest.pop() ?? '';
  if (!name.startsWith(first) || name.length < first.length + last.length || !name.endsWith(last)) return false;
  let at = first.length;
  for (const piece of rest) {
    const found = name.indexOf(piece, at);
    if (found === -1 || found + piece.length > name.length - last.length) return false;
    at = found + piece.length;
  }
  return true;
}

/** Whether `name` passes `patterns`: those with `!` take away what the others let in, in whatever order they stand. */
export function passes(name: string, patterns: readonly string[]): boolean {
  const allowed = patterns.some((pattern) => !pattern.startsWith('!') && matchesGlob(name, pattern));
  return allowed && !patterns.some((pattern) => pattern.startsWith('!') && matchesGlob(name, pattern.slice(1)));
}
