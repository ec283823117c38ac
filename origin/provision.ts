/**
 * Owns what stands between a server's entry in the configuration and its process in a microVM: the image that its machine
 * boots from, and the command inside.
 */
import { join, relative, resolve } from 'node:path';
import { isOciImage, recipeOf } from '../shared/config/image.ts';
import { GUEST_PATH } from './guest/process.ts';
import { ensureApp, PYTHON, packageFolderOf, type ServerRecipe } from './images/app.ts';
import { noticingUses, type Progress } from './images/cache.ts';
import type { CommandPlan } from './images/command-plan.ts';
import { CONTAINER_PACKAGE, ENTER } from './images/container-scripts.ts';
import { ensureMachineImage } from './images/machine-image.ts';
import { ensureOci } from './images/oci/image.ts';
import { argvOf, type RunConfiguration } from './images/oci/run-as.ts';
import { planCommand } from './images/plan.ts';
import { ensureSystem, PYTHON_PACKAGE } from './images/system.ts';
import type { MachineDefinition, ProcessDefinition } from './server.ts';
import type { MachineImage, ProcessSpec } from './vm/driver.ts';
import { MachineError } from './vm/error.ts';

/** A machine whose image is there. */
export interface Provision {
  readonly image: MachineImage;
  /** Folders of the cache that it was made with. */
  readonly uses: readonly string[];
  /**
   * How the process of one of its servers is started, or a process that runs `instead` where the server would: in its
   * folder, its environment and its root. Rejects with `app-bin-missing`.
   */
  processOf(server: ProcessDefinition, instead?: readonly string[]): Promise<ProcessSpec>;
}

export interface ProvisionOptions {
  readonly cacheDir: string;
  /** Folder of the configuration: `files` are relative to it. */
  readonly configDir: string;
}

/** Finds or builds everything that the machine's servers need. Rejects with a MachineError. */
export async function provision(
  definition: MachineDefinition,
  options: ProvisionOptions,
  progress: Progress,
): Promise<Provision> {
  const { result, uses } = await noticingUses(() => make(definition, options, progress));
  return { ...result, uses };
}

async function make(
  { servers }: MachineDefinition,
  options: ProvisionOptions,
  progress: Progress,
): Promise<Omit<Provision, 'uses'>> {
  const { cacheDir, configDir } = options;
  const plans = new Map(servers.map((server) => [server.name, planOf(server)] as const));
  const container = containerOf([...plans.values()]);
  const recipes: Record<string, ServerRecipe> = {};
  for (const server of servers) {
    const plan = plans.get(server.name);
    const { npm = [], pip = [] } = recipeOf(server.entry.image) ?? {};
    const files = plan && (await filesOf(server, plan, configDir));
    recipes[server.name] = {
      npm: [...npm, ...(plan?.kind === 'npm' ? plan.npm : [])],
      pip: [...pip, ...(plan?.kind === 'pip' ? plan.pip : [])],
      ...(files === undefined ? {} : { files }),
    };
  }
  const packages = systemPackages(servers, [...plans.values()]);
  const [image, system, app, oci] = await Promise.all([
    ensureMachineImage(cacheDir, progress),
    packages.length > 0 ? ensureSystem(cacheDir, packages, progress) : undefined,
    ensureApp(cacheDir, { servers: recipes }, progress),
    container === undefined ? undefined : ensureOci(cacheDir, container, configDir, progress),
  ]);
  return {
    image: {
      ...image,
      ...(system === undefined ? {} : { system: system.path }),
      ...(app.path === undefined ? {} : { app: app.path }),
      ...(oci === undefined ? {} : { container: oci.path }),
    },
    async processOf(server, instead) {
      const { name, entry } = server;
      const plan = planOf(server);
      const files = recipes[name]?.files;
      const folder = app.guestFolder(name);
      const cwd = files === undefined ? `/data/${name}` : join(folder, 'files');
      const own = [join(folder, PYTHON, 'bin'), join(folder, 'node_modules/.bin')];
      const env = entry.image === undefined ? entry.env : { PATH: [...own, GUEST_PATH].join(':'), ...entry.env };
      if (instead !== undefined && plan.kind !== 'container') return { argv: instead, env, cwd };
      switch (plan.kind) {
        case 'npm':
          return { argv: [...(await app.resolveBin(name, plan.bin)), ...plan.args], env, cwd };
        case 'pip': {
          const path = [own[0], GUEST_PATH].join(':');
          return {
            argv: [...(await app.resolveScript(name, plan.bin)), ...plan.args],
            env: { PATH: path, ...env },
            cwd,
          };
        }
        case 'files': {
          // With `files` a script's path is relative to that folder, else to the configuration.
          const base = entry.files === undefined ? configDir : (files ?? '');
          const script = join(folder, 'files', relative(files ?? '', resolve(base, plan.file)));
          return { argv: [plan.interpreter, ...plan.flags, script, ...plan.args], env, cwd };
        }
        case 'plain':
          return { argv: plan.argv, env, cwd };
        case 'container': {
          if (oci === undefined) throw new MachineError('image-unavailable', `machine of "${name}" has no container`);
          const folder = files === undefined ? (plan.workdir ?? oci.run.workdir) : cwd;
          const argv = [...enter(oci.run, folder), ...(instead ?? argvOf(oci.run, plan.command, plan.args))];
          return { argv, env: { ...oci.run.env, ...plan.env, ...entry.env }, cwd: '/' };
        }
      }
    },
  };
}

function planOf({ name, entry }: ProcessDefinition): CommandPlan {
  const { command, args, image, files } = entry;
  if (isOciImage(image))
    return { kind: 'container', image, args, env: {}, ...(command === undefined ? {} : { command }) };
  if (command === undefined) throw new MachineError('command-unsupported', `server "${name}" has no command`);
  return planCommand(command, args, { image: image !== undefined, files: files !== undefined });
}

/** The one container image of a machine. */
function containerOf(plans: readonly CommandPlan[]): string | undefined {
  const images = new Set(plans.flatMap((plan) => (plan.kind === 'container' ? [plan.image] : [])));
  if (images.size > 1) {
    throw new MachineError(
      'command-unsupported',
      `one machine runs one container image, and its servers name ${[...images].join(', ')}: give them machines of their own`,
    );
  }
  return [...images][0];
}

/** Into the container as its user: numbers, which are looked up nowhere. */
const enter = ({ uid, gid, groups }: RunConfiguration, folder: string): string[] => [
  ENTER,
  `+${uid}:+${gid}`,
  groups.map((group) => `+${group}`).join(','),
  folder,
];

/** The host folder that goes into the image: the configured one, else the package that a script belongs to. */
async function filesOf(
  { entry }: ProcessDefinition,
  plan: CommandPlan,
  configDir: string,
): Promise<string | undefined> {
  if (entry.files !== undefined) return resolve(configDir, entry.files);
  return plan.kind === 'files' ? await packageFolderOf(resolve(configDir, plan.file)) : undefined;
}

/** The distribution's packages that the servers of a machine need together: its root is one. */
function systemPackages(servers: readonly ProcessDefinition[], plans: readonly CommandPlan[]): string[] {
  const recipes = servers.map(({ entry }) => recipeOf(entry.image));
  const python =
    plans.some((plan) => plan.kind === 'pip' || (plan.kind === 'files' && plan.interpreter === 'python3')) ||
    plans.some((plan) => plan.kind === 'plain' && plan.python === true) ||
    recipes.some((recipe) => recipe?.base === 'python' || (recipe?.pip.length ?? 0) > 0);
  const wanted = recipes.flatMap((recipe) => recipe?.apt ?? []);
  if (python) wanted.push(PYTHON_PACKAGE);
  if (containerOf(plans) !== undefined) wanted.push(CONTAINER_PACKAGE);
  return [...new Set(wanted)].sort();
}
