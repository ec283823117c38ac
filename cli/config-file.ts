/** Owns how the configuration is found and read for a command. */
import { readFileSync } from 'node:fs';
import { type Config, parseConfig } from '../shared/config.ts';
import { UsageError } from './usage.ts';

/** The file that a command reads when none is named. */
export const DEFAULT_CONFIG = 'moorage.jsonc';

/** @throws ConfigError; UsageError when there is no such file. */
export function readConfig(file: string): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new UsageError(
      code === 'ENOENT'
        ? `There is no ${file} here. Write one, or name it with --config.`
        : `${file} cannot be read (${code}).`,
    );
  }
  return parseConfig(text);
}
