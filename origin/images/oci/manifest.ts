/**
 * The documents of an OCI image (image specification 1.1; Docker's schema 2 reads alike): index, manifest, configuration.
 * Pure. Everything in them comes from outside.
 */
import { z } from 'zod';
import { type Digest, isDigest } from '../../../shared/config/oci-reference.ts';
import { MachineError } from '../../vm/error.ts';

/** Longest document that is read, in bytes: what registries accept. */
export const MAX_DOCUMENT = 4 * 1024 * 1024;
const MAX_LAYERS = 200;

export const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
] as const;

const digest = z.custom<Digest>((value) => typeof value === 'string' && isDigest(value), 'only sha256 is known');

const descriptor = z.object({
  mediaType: z.string().optional(),
  digest,
  size: z.number().int().nonnegative(),
  platform: z.object({ os: z.string(), architecture: z.string(), variant: z.string().optional() }).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
});
export type Descriptor = z.infer<typeof descriptor>;

const index = z.object({ manifests: z.array(descriptor).max(1000) });
const manifest = z.object({ config: descriptor, layers: z.array(descriptor).max(MAX_LAYERS) });
export type Manifest = z.infer<typeof manifest>;

const strings = z.array(z.string()).nullish();
const configuration = z.object({
  os: z.string().default('linux'),
  architecture: z.string().default('amd64'),
  config: z
    .object({
      Entrypoint: strings,
      Cmd: strings,
      Env: strings,
      User: z.string().nullish(),
      WorkingDir: z.string().nullish(),
    })
    .nullish(),
  rootfs: z.object({ diff_ids: z.array(digest).max(MAX_LAYERS) }),
});
export type Configuration = z.infer<typeof configuration>;

/** `docker save`: one entry an image. */
const saved = z.array(z.object({ Config: z.string(), RepoTags: strings, Layers: z.array(z.string()).max(MAX_LAYERS) }));
export type Saved = z.infer<typeof saved>[number];

export const parseIndex = (text: string): Descriptor[] => read(index, text, 'index').manifests;
export const parseSaved = (text: string): Saved[] => read(saved, text, 'manifest.json');

/** An index of images, or one image's manifest. */
export function parseManifest(text: string): { index: Descriptor[] } | { manifest: Manifest } {
  const value: unknown = json(text, 'manifest');
  const isIndex = typeof value === 'object' && value !== null && 'manifests' in value;
  return isIndex ? { index: parseIndex(text) } : { manifest: read(manifest, text, 'manifest') };
}

export function parseConfiguration(text: string): Configuration {
  const parsed = read(configuration, text, 'configuration');
  if (parsed.os !== 'linux' || parsed.architecture !== 'amd64') {
    throw unusable(`it is made for ${parsed.os}/${parsed.architecture}; machines are linux/amd64`);
  }
  return parsed;
}

/** The image for machines among those of an index; where there are several, the first, as container tools do. */
export function forMachines(all: readonly Descriptor[]): Descriptor {
  const [found] = allForMachines(all);
  if (found !== undefined) return found;
  const platforms = all.map(({ platform }) => (platform ? `${platform.os}/${platform.architecture}` : 'unknown'));
  throw unusable(`it has no linux/amd64 (it has: ${[...new Set(platforms)].join(', ').slice(0, 200) || 'nothing'})`);
}

/** Those for linux/amd64, or one alone that does not say what it is for. Variants may need more than a processor has. */
export function allForMachines(all: readonly Descriptor[]): readonly Descriptor[] {
  if (all.length === 1 && all[0]?.platform === undefined) return all;
  const ours = all.filter(({ platform }) => platform?.os === 'linux' && platform.architecture === 'amd64');
  const plain = ours.filter(({ platform }) => platform?.variant === undefined || platform.variant === 'v1');
  return plain.length > 0 ? plain : ours;
}

function read<T>(schema: z.ZodType<T>, text: string, what: string): T {
  const parsed = schema.safeParse(json(text, what));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw unusable(`its ${what} is not valid: ${issue?.path.join('.')} ${issue?.message}`);
}

function json(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw unusable(`its ${what} is not JSON`);
  }
}

/** The image cannot be used; `why` goes on from "the image". */
export function unusable(why: string): MachineError {
  return new MachineError('image-build-failed', `the image cannot be used: ${why}`);
}
