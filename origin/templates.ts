/**
 * Owns templates: for each machine of which callers get their own, one that was booted, warmed and put to sleep before any
 * server ran in it. A caller's new machine is a copy of it, which wakes, instead of a boot.
 *
 * A template has no process of a server, so none can have the random numbers of another; its copies become machines of
 * their own as they wake (`vm/copy.ts`). It is found by what decides how it boots, made when it is missing, and made anew
 * when it is of no use (another QEMU, damage). One at a time is made for a machine, however many callers come at once.
 */
import { createHash } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from './log.ts';
import type { CopyCost, MachineDriver, MachineSpec, RunningMachine } from './vm/driver.ts';
import { MachineError } from './vm/error.ts';

const WARM_WITHIN_MS = 60_000;
/** Reads what servers run from, so that their first start finds it in memory: the template's, shared by all copies. */
const WARM = 'find /opt/mcp -type f -size -2048k | head -n 4000 | xargs cat >/dev/null 2>&1; node -e 0';

type Progress = (step: string) => void;

interface Template {
  readonly spec: MachineSpec;
  /** Of one that was made in this life. */
  readonly machine?: RunningMachine;
}

export class Templates {
  readonly #driver: MachineDriver;
  readonly #folder: string;
  readonly #log: Log;
  readonly #known = new Map<string, Promise<Template>>();

  /** `folder` is theirs alone. */
  constructor(options: { driver: MachineDriver; folder: string; log: Log }) {
    this.#driver = options.driver;
    this.#folder = options.folder;
    this.#log = options.log;
  }

  /**
   * A new machine, awake, made after machine `home`; undefined where it cannot be made in this way: boot it. `files` are in
   * its folder, which must not be there, from its first moment. Rejects with `boot-aborted`.
   */
  async make(
    home: string,
    spec: MachineSpec,
    files: Readonly<Record<string, string>>,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<RunningMachine | undefined> {
    if (!this.#driver.copy || !this.#driver.recall) return undefined;
    try {
      const cost = await this.#copy(home, spec, files, progress);
      if (signal.aborted) throw new MachineError('boot-aborted', `making "${spec.key}" was cancelled`);
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
  ): Promise<CopyCost> {
    const copy = async (): Promise<CopyCost> => {
      const template = await this.#template(home, spec, progress);
      return (await this.#driver.copy?.(template.spec, spec, { files })) as CopyCost;
    };
    try {
      return await copy();
    } catch (error) {
      if (!(error instanceof MachineError) || error.code !== 'snapshot-unusable') throw error;
      progress(`its template is of no use any more (${error.message})`);
      await this.#forget(home, spec);
      return await copy();
    }
  }

  #template(home: string, spec: MachineSpec, progress: Progress): Promise<Template> {
    const name = nameOf(home, spec);
    const known = this.#known.get(name);
    if (known) return known;
    const making = this.#find(home, name, spec, progress);
    this.#known.set(name, making);
    making.catch(() => this.#known.delete(name));
    return making;
  }

  async #find(home: string, name: string, like: MachineSpec, progress: Progress): Promise<Template> {
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
    const machine = await this.#driver.boot(spec, progress);
    try {
      await warm(machine);
      await machine.sleep?.pause(true);
      await machine.sleep?.hibernate(undefined);
      return { spec, machine };
    } catch (error) {
      machine.kill();
      throw error;
    }
  }

  async #forget(home: string, spec: MachineSpec): Promise<void> {
    const name = nameOf(home, spec);
    const template = await this.#known.get(name);
    this.#known.delete(name);
    template?.machine?.kill();
    await template?.machine?.gone;
    await rm(join(this.#folder, name), { recursive: true, force: true });
  }
}

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
