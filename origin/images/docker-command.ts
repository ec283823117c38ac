/** What `docker run` would do with its arguments, as far as it makes sense for a server that speaks over its pipes. Pure. */
import { parseOciReference } from '../../shared/config/oci-reference.ts';
import { type CommandPlan, splitFlag, unsupported } from './command-plan.ts';

/** Options that say nothing to a machine, or what is so anyhow. */
const IGNORED = new Set(['-i', '--interactive', '--rm', '--init', '-q', '--quiet', '-it', '-ti', '-t', '--tty']);
const IGNORED_WITH_VALUE = new Set(['--name', '--pull', '--platform', '--label', '-l']);
const ELSEWHERE: Readonly<Record<string, string>> = {
  '-v': 'a machine shares no folder with its host: use "files"',
  '--volume': 'a machine shares no folder with its host: use "files"',
  '--mount': 'a machine shares no folder with its host: use "files"',
  '-p': 'for a server that listens on a port, run the container yourself and give its "url"',
  '--publish': 'for a server that listens on a port, run the container yourself and give its "url"',
};

export function planDocker(args: readonly string[]): CommandPlan {
  const env: Record<string, string> = {};
  const plan: { command?: string; workdir?: string } = {};
  let index = 0;
  for (; index < args.length; index += 1) {
    const arg = args[index] ?? '';
    if (!arg.startsWith('-')) break;
    if (IGNORED.has(arg)) continue;
    const [flag, inline] = splitFlag(arg);
    const value = (): string => {
      const text = inline ?? args[++index];
      if (text === undefined) throw unsupported(`docker: ${flag} needs a value`);
      return text;
    };
    if (flag === '-e' || flag === '--env') {
      const text = value();
      const at = text.indexOf('=');
      // Without a value it is the client's own variable that goes in: the entry's `env`, which goes in anyhow.
      if (at > 0) env[text.slice(0, at)] = text.slice(at + 1);
    } else if (flag === '--entrypoint') plan.command = value();
    else if (flag === '-w' || flag === '--workdir') plan.workdir = value();
    else if (IGNORED_WITH_VALUE.has(flag)) value();
    else
      throw unsupported(
        `docker: the option ${flag} is not understood${flag in ELSEWHERE ? ` (${ELSEWHERE[flag]})` : ''}`,
      );
  }
  const [image, ...rest] = args.slice(index);
  if (image === undefined) throw unsupported('docker: no image is named');
  if (parseOciReference(`oci:${image}`) === undefined) throw unsupported(`"${image}" is not the name of an image`);
  return { kind: 'container', image: `oci:${image}`, args: rest, env, ...plan };
}
