/**
 * Owns templates: for each machine of which callers get their own, one that was booted, warmed and put to sleep before any
 * server ran in it. A caller's new machine is a copy of it, which wakes, instead of a boot.
 *
 * A template has no process of a server, so none can have the random numbers of another; its copies become machines of
 * their own as they wake (`vm/copy.ts`). It is found by what decides how it boots, made when it is missing, and made anew
 * when it is of no use (another QEMU, damage). One at a time is made for a machine, however many callers come at once.
 *
 * Invariant: a template is awake only while a machine waits for it, and in that machine's place: it has as much memory, and
 * is asleep or gone before the machine that has waited longest starts or gives its place up. So it needs none of its own.
 */
import { createHash } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from './log.ts';
import type { CopyCost, MachineDriver, MachineSpec, RunningMachine } from './vm/driver.ts';
import { MachineError } from './vm/error.ts';

const WARM_WITHIN_MS = 60_000;
/** After one could not be made, machines boot for so long. */
const AGAIN_AFTER_MS = 600_000;
/** Reads what servers run from, so that their first start finds it in memory: the template's, shared by all copies. */
const WARM = 'find /opt/mcp -type f -size -2048k | head -n 4000 | xargs cat >/dev/null 2>&1; node -e 0';

type Progress = (step: string) => void;

interface Template {
  readonly spec: MachineSpec;
  /** Of one that was made in this life. */
  readonly machine?: RunningMachine;
}

/** One that is being made. */
interface Making {
  /** Rejects when nothing of it runs. */
  readonly template: Promise<Template>;
  /** Machines that wait for it. With the last one it ends. */
  waiting: number;
  readonly abort: AbortController;
}

export class Templates {
  readonly #driver: MachineDriver;
  readonly #folder: string;
  readonly #log: Log;
  readonly #ready = new Map<string, Template>();
  readonly #making = new Map<string, Making>();
  /** When the next try may be, of those that could not be made. In milliseconds. */
  readonly #retryAt = new Map<string, number>();
  /** Of those that are being removed: resolves when nothing of one is left. */
  readonly #leaving = new Map<string, Promise<void>>();

  readonly #now: () => number;

  /** `folder` is theirs alone. */
  constructor(options: { driver: MachineDriver; folder: string; log: Log; now?: () => number }) {
    this.#driver = options.driver;
    this.#folder = options.folder;
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
  }

  /**
   * A new machine, awake, made after machine `home`; undefined where it cannot be made in this way: boot it. `files` are in
   * its folder, which must not be there, from its first moment. Rejects with `boot-aborted` when nothing runs for it.
   */
  async make(
    home: string,
    spec: MachineSpec,
    files: Readonly<Record<string, string>>,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<RunningMachine | undefined> {
    if (!this.#driver.copy || !this.#driver.recall) return undefined;
    if (this.#now() < (this.#retryAt.get(nameOf(home, spec)) ?? 0)) return undefined;
    try {
      const cost = await this.#copy(home, spec, files, progress, signal);
      if (signal.aborted) throw notWanted(spec);
      const made = await this.#driver.recall(spec);
      await made?.machine.sleep?.wake();
      progress(`made from a template, disk ${cost.disk}`);
      return made?.machine;
    } catch (error) {
      await rm(spec.dir, { recursive: true, force: true });
      if (!(error instanceof MachineError) || error.code === 'boot-aborted') throw error;
      this.#log.warn(`machine ${spec.key} cannot be made from a template, it is booted: ${error.message}`);
      return undefined;
    }
  }

  /** Removes the templates of machines that are not among `homes`. */
  async sweep(homes: ReadonlySet<string>): Promise<void> {
    await this.#driver.sweep?.(this.#folder);
    for (const name of await readdir(this.#folder).catch(() => [])) {
      if (homes.has(homeOf(name))) continue;
      // Ends what may still run there.
      await this.#driver.isAsleep?.(join(this.#folder, name));
      await rm(join(this.#folder, name), { recursive: true, force: true });
    }
  }

  async #copy(
    home: string,
    spec: MachineSpec,
    files: Readonly<Record<string, string>>,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<CopyCost> {
    // Both are there where machines are made in this way.
    const copy = async (template: Template) => (await this.#driver.copy?.(template.spec, spec, { files })) as CopyCost;
    const template = await this.#template(home, spec, progress, signal);
    try {
      return await copy(template);
    } catch (error) {
      if (!(error instanceof MachineError) || error.code !== 'snapshot-unusable') throw error;
      progress(`its template is of no use any more (${error.message})`);
      await this.#forget(nameOf(home, spec), template);
      return await copy(await this.#template(home, spec, progress, signal));
    }
  }

  async #template(home: string, spec: MachineSpec, progress: Progress, signal: AbortSignal): Promise<Template> {
    const name = nameOf(home, spec);
    for (;;) {
      await this.#leaving.get(name);
      const ready = this.#ready.get(name);
      if (ready) return ready;
      const making = this.#making.get(name) ?? this.#begin(home, name, spec, progress);
      if (!making.abort.signal.aborted) return await awaited(making, spec, signal);
      // Nobody wanted it any more: another begins when it has left the folder.
      await making.template.catch(() => undefined);
    }
  }

  #begin(home: string, name: string, spec: MachineSpec, progress: Progress): Making {
    const abort = new AbortController();
    const template = this.#find(home, name, spec, progress, abort.signal).then(
      (found) => {
        this.#ready.set(name, found);
        this.#making.delete(name);
        return found;
      },
      (error: unknown) => {
        this.#making.delete(name);
        if (!abort.signal.aborted) this.#retryAt.set(name, this.#now() + AGAIN_AFTER_MS);
        throw error;
      },
    );
    template.catch(() => undefined);
    const making = { template, waiting: 0, abort };
    this.#making.set(name, making);
    return making;
  }

  async #find(
    home: string,
    name: string,
    like: MachineSpec,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<Template> {
    // Nothing that runs in it reaches anything.
    const { egress: _, ...plain } = like;
    const spec: MachineSpec = {
      ...plain,
      key: `template of ${home}`,
      dir: join(this.#folder, name),
      hostname: 'template',
    };
    if (await this.#driver.isAsleep?.(spec.dir)) return { spec };
    // Those that this machine had with another image or other limits.
    for (const other of await readdir(this.#folder).catch(() => []))
      if (homeOf(other) === home) await rm(join(this.#folder, other), { recursive: true, force: true });
    progress('booting a template, for this machine and those that follow');
    const machine = await this.#driver.boot(spec, progress, signal);
    const end = () => machine.kill();
    signal.addEventListener('abort', end, { once: true });
    try {
      if (signal.aborted) throw notWanted(spec);
      await warm(machine);
      await machine.sleep?.pause(true);
      signal.removeEventListener('abort', end);
      if (signal.aborted) throw notWanted(spec);
      // From here on it is as quickly made as given up.
      await machine.sleep?.hibernate(undefined);
      return { spec, machine };
    } catch (error) {
      machine.kill();
      await machine.gone;
      throw signal.aborted ? notWanted(spec) : error;
    }
  }

  /** Removes one that is of no use, unless somebody has done it already. */
  async #forget(name: string, { machine, spec }: Template): Promise<void> {
    if (this.#ready.get(name)?.spec !== spec) return;
    this.#ready.delete(name);
    machine?.kill();
    const left = Promise.resolve(machine?.gone).then(() => rm(spec.dir, { recursive: true, force: true }));
    this.#leaving.set(name, left);
    await left.finally(() => this.#leaving.delete(name));
  }
}

/** The template, unless the machine that waits is not wanted any more. */
async function awaited(making: Making, spec: MachineSpec, signal: AbortSignal): Promise<Template> {
  making.waiting += 1;
  const left = Promise.withResolvers<never>();
  const leave = () => {
    making.waiting -= 1;
    // The last one leaves when the template has: it stands in its place.
    if (making.waiting === 0) making.abort.abort();
    else left.reject(notWanted(spec));
  };
  signal.addEventListener('abort', leave, { once: true });
  if (signal.aborted) leave();
  try {
    const template = await Promise.race([making.template, left.promise]);
    if (signal.aborted) throw notWanted(spec);
    return template;
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

const notWanted = ({ key }: MachineSpec): MachineError =>
  new MachineError('boot-aborted', `nobody wants "${key}" any more`);

/** A template is for machines that boot in the same way. A machine's name has no dot. */
function nameOf(home: string, { image, memoryMiB, cpus, diskMiB, pids }: MachineSpec): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([image, memoryMiB, cpus, diskMiB, pids]))
    .digest('hex');
  return `${home}.${digest.slice(0, 16)}`;
}

const homeOf = (name: string): string => name.split('.')[0] ?? '';

async function warm(machine: RunningMachine): Promise<void> {
  const reader = await machine.spawn({ argv: ['sh', '-c', WARM], env: {}, cwd: '/' });
  reader.stdout.resume();
  reader.stderr.resume();
  const late = setTimeout(() => reader.kill('SIGKILL'), WARM_WITHIN_MS);
  await reader.exited;
  clearTimeout(late);
}
