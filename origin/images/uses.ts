/**
 * Which images are in use, told to everybody who shares the cache: `<cache>/uses/<id>.json` of each state folder names what
 * its configured machines are made of, and `images.json` in a machine's folder what that machine last booted from, which
 * holds for machines that sleep or are configured no longer.
 *
 * Invariant: what is noted is noted before it is used for anything that outlasts the grace of a removal.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { isFolder } from './cache.ts';

const FOLDER = 'uses';
const MACHINE_FILE = 'images.json';

const uses = z.array(z.string());
const note = z.object({ stateDir: z.string(), machines: z.record(z.string(), uses) });

/** What the configured machines of one state folder are made of. One at a time has a state folder. */
export class ConfiguredUses {
  readonly #cacheDir: string;
  readonly #stateDir: string;
  readonly #machines: ReadonlySet<string>;
  #last: Promise<void> = Promise.resolve();

  /** `machines` are all that are configured: what was noted of others is forgotten with the first note. */
  constructor(cacheDir: string, stateDir: string, machines: Iterable<string>) {
    this.#cacheDir = cacheDir;
    this.#stateDir = stateDir;
    this.#machines = new Set(machines);
  }

  /** Notes it of one machine; of others what was noted before holds. */
  note(machine: string, folders: readonly string[]): Promise<void> {
    const noting = this.#last.then(() => this.#note(machine, folders));
    this.#last = noting.catch(() => undefined);
    return noting;
  }

  async #note(machine: string, folders: readonly string[]): Promise<void> {
    const known = (await notesIn(this.#cacheDir)).find(({ stateDir }) => stateDir === this.#stateDir)?.machines ?? {};
    const kept = Object.entries(known).filter(([key]) => this.#machines.has(key) && key !== machine);
    const machines = Object.fromEntries([...kept, [machine, folders]]);
    const id = createHash('sha256').update(this.#stateDir).digest('hex').slice(0, 32);
    await mkdir(join(this.#cacheDir, FOLDER), { recursive: true, mode: 0o700 });
    await replace(join(this.#cacheDir, FOLDER, `${id}.json`), JSON.stringify({ stateDir: this.#stateDir, machines }));
  }
}

/** Notes what a machine is about to boot from. */
export async function noteBoot(machineDir: string, folders: readonly string[]): Promise<void> {
  await mkdir(machineDir, { recursive: true, mode: 0o700 });
  await replace(join(machineDir, MACHINE_FILE), JSON.stringify(folders));
}

/** By folder of the cache (`kind/digest`) who uses it: state folder and machine. */
export type Users = ReadonlyMap<string, ReadonlySet<string>>;

/**
 * All uses that are noted. A note whose state folder is away (removed, or on a disk that is not mounted) counts until it is
 * older than `graceMs`, and is then removed.
 */
export async function usersIn(cacheDir: string, graceMs: number, now: number): Promise<Users> {
  const users = new Map<string, Set<string>>();
  const add = (folders: readonly string[], stateDir: string, machine: string) => {
    for (const folder of folders) {
      const known = users.get(folder) ?? new Set();
      users.set(folder, known.add(`${stateDir} ${machine}`));
    }
  };
  for (const { stateDir, machines, file, usedAt } of await notesIn(cacheDir)) {
    if (!(await isFolder(stateDir)) && now - usedAt > graceMs) {
      await rm(file, { force: true });
      continue;
    }
    for (const [machine, folders] of Object.entries(machines)) add(folders, stateDir, machine);
    for (const machine of await readdir(join(stateDir, 'machines')).catch((): string[] => [])) {
      const booted = uses.safeParse(await readJson(join(stateDir, 'machines', machine, MACHINE_FILE)));
      if (booted.success) add(booted.data, stateDir, machine);
    }
  }
  return users;
}

async function notesIn(cacheDir: string): Promise<(z.infer<typeof note> & { file: string; usedAt: number })[]> {
  const found = [];
  for (const name of await readdir(join(cacheDir, FOLDER)).catch((): string[] => [])) {
    if (!name.endsWith('.json')) continue;
    const file = join(cacheDir, FOLDER, name);
    const parsed = note.safeParse(await readJson(file));
    if (parsed.success) found.push({ ...parsed.data, file, usedAt: (await stat(file)).mtimeMs });
  }
  return found;
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch {
    // Gone meanwhile, or never written.
    return undefined;
  }
}

async function replace(file: string, text: string): Promise<void> {
  const draft = `${file}.${randomUUID()}.tmp`;
  await writeFile(draft, text, { mode: 0o600 });
  await rename(draft, file);
}
