/**
 * Owns `moorage cp`: files and folders between this host and the machine of a server, as an archive through the guest's own
 * tar. What comes from a machine is hostile (`unpack.ts`).
 */
import { lstat, stat } from 'node:fs/promises';
import { basename, join, posix, resolve } from 'node:path';
import { PassThrough } from 'node:stream';
import { printable } from '../origin/log.ts';
import type { Command, Input } from './command.ts';
import { controlOf } from './control.ts';
import { packed } from './pack.ts';
import { unpack } from './unpack.ts';
import { UsageError } from './usage.ts';
import { visit } from './visit.ts';

export const command: Command = {
  usage: `cp <server>:<path> <local path>
       moorage cp <local path> <server>:<path>

Copies a file or a folder out of the machine of a server, or into it. Into a folder that exists, it keeps its name.
Permissions and times are kept; links are copied as links, out of a machine only those that stay inside what is copied.
`,
  options: {},
  run: async (input) => {
    const [from, to, ...more] = input.positionals;
    if (from === undefined || to === undefined || more.length > 0) throw usage();
    const [source, target] = [placeOf(from), placeOf(to)];
    if (source.server !== undefined && target.server === undefined) return await out(input, source, target.path);
    if (source.server === undefined && target.server !== undefined) return await into(input, source.path, target);
    throw usage();
  },
};

interface Inside {
  readonly server: string;
  readonly path: string;
}
type Place = Inside | { readonly server: undefined; readonly path: string };

/** `notes:/data/a` is inside a machine. A local name with a colon is written `./a:b`. */
function placeOf(text: string): Place {
  const found = /^([A-Za-z0-9][A-Za-z0-9._-]*):(.+)$/s.exec(text);
  return found?.[1] && found[2] ? { server: found[1], path: found[2] } : { server: undefined, path: text };
}

const usage = () =>
  new UsageError('One of the two is in a machine: moorage cp <server>:<path> <local path>, or the other way round.');

const leftOut = (name: string, why: string): void => {
  process.stderr.write(`left out: ${printable(name)} (${why})\n`);
};

async function out(input: Input, { server, path }: Inside, local: string): Promise<number> {
  const [folder, base] = split(path);
  const target = (await isFolder(local)) && base !== '.' ? join(local, base) : resolve(local);
  const archive = new PassThrough();
  const argv = ['sh', '-c', 'cd "$1" && exec tar -cf - "./$2"', 'sh', folder, base];
  const there = await visit(controlOf(input), { server, argv, env: {} }, { stdout: archive, stderr: process.stderr });
  const unpacking = unpack(archive, { base, target, leftOut });
  // Nobody reads on.
  unpacking.catch(() => there.leave());
  const [ended, unpacked] = await Promise.allSettled([there.exited.finally(() => archive.end()), unpacking]);
  // The guest's tar has told why.
  if (ended.status === 'fulfilled' && ended.value.code !== 0) return 1;
  if (unpacked.status === 'rejected') throw unpacked.reason;
  if (ended.status === 'rejected') throw ended.reason;
  return 0;
}

async function into(input: Input, local: string, { server, path }: Inside): Promise<number> {
  if (!(await lstat(local).catch(() => undefined))) throw new UsageError(`There is no ${local} here.`);
  const control = controlOf(input);
  const outputs = { stdout: process.stderr, stderr: process.stderr };
  const asked = await visit(control, { server, argv: ['test', '-d', path], env: {} }, outputs);
  const isInFolder = (await asked.exited).code === 0;
  const [folder, name] = isInFolder ? [path, basename(resolve(local))] : split(path);
  const argv = ['sh', '-c', 'cd "$1" && exec tar -xpf -', 'sh', folder];
  const stdin = packed(local, name, leftOut);
  const there = await visit(control, { server, argv, env: {} }, { ...outputs, stdin });
  return (await there.exited).code === 0 ? 0 : 1;
}

/** Folder and name of a path of the guest; the name of a root is `.`. */
function split(path: string): [folder: string, name: string] {
  const whole = posix.normalize(path).replace(/(?<=.)\/$/, '');
  return whole === '/' ? ['/', '.'] : [posix.dirname(whole), posix.basename(whole)];
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}
