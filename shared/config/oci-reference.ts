/**
 * What an OCI image is called: `oci:` and a registry's name for it (docs.docker.com's "reference" grammar, as every
 * container tool reads it), or a path that starts with `.` or `/`, to an image layout or a saved tar. Pure.
 */

/** `sha256:` and 64 hexadecimal digits: the one algorithm that is in use. */
export type Digest = `sha256:${string}`;
export const isDigest = (text: string): text is Digest => /^sha256:[0-9a-f]{64}$/.test(text);

export type OciReference =
  | {
      readonly kind: 'registry';
      /** Host, with its port where it has one. */
      readonly registry: string;
      readonly repository: string;
      readonly tag: string;
      /** Where it is given it decides, not the tag. */
      readonly digest?: Digest;
    }
  | { readonly kind: 'path'; readonly path: string; readonly digest?: Digest };

const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?$/i;
const REPOSITORY = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/** Undefined for what is no reference. `text` begins with `oci:`. */
export function parseOciReference(text: string): OciReference | undefined {
  const match = /^oci:([^@]+)(?:@(.+))?$/.exec(text);
  const [, name, digest] = match ?? [];
  if (name === undefined || (digest !== undefined && !isDigest(digest))) return undefined;
  const pinned = digest === undefined ? {} : { digest: digest as Digest };
  if (/^(\.{0,2}\/|\.{1,2}$)/.test(name)) return { kind: 'path', path: name, ...pinned };
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isHost = first === 'localhost' || /[.:[]/.test(first);
  const registry = isHost ? first : 'docker.io';
  const rest = isHost ? name.slice(slash + 1) : name;
  const [path = '', tag = 'latest', ...more] = rest.split(':');
  const repository = registry === 'docker.io' && !path.includes('/') ? `library/${path}` : path;
  if (more.length > 0 || !HOST.test(registry) || !REPOSITORY.test(repository) || !TAG.test(tag)) return undefined;
  return { kind: 'registry', registry, repository, tag, ...pinned };
}
