/**
 * Images from a registry (OCI distribution specification 1.1, Docker's token authentication). Anonymous, or with what
 * `docker login` left in the user's configuration.
 *
 * Attacks: a registry may send anything, so documents and layers are checked against digests by their readers and bounded
 * in length and time; a token is asked for at an https address alone, and no credential follows a redirect to another host.
 */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { OciReference } from '../../../shared/config/oci-reference.ts';
import { MachineError } from '../../vm/error.ts';
import { type Descriptor, MANIFEST_TYPES, MAX_DOCUMENT, unusable } from './manifest.ts';
import { type Blobs, digestOfBytes, imageOf, readAll, type SourceImage } from './source.ts';

type RegistryReference = Extract<OciReference, { kind: 'registry' }>;

/** A layer may be slow, but not silent. Milliseconds. */
const HEADERS_MS = 60_000;
const SILENCE_MS = 60_000;

/** The image that a reference names. Rejects with `image-unavailable` or `image-build-failed`. */
export async function imageAt(reference: RegistryReference, digest = reference.digest): Promise<SourceImage> {
  const repository = new Repository(reference);
  const start = await repository.manifest(digest ?? reference.tag);
  if (digest !== undefined && start.descriptor.digest !== digest)
    throw unusable(`${digest} has other content than it says`);
  const blobs: Blobs = {
    // The first document is there already; others by their digests.
    open: async (descriptor) =>
      descriptor.digest === start.descriptor.digest ? Readable.from([start.data]) : await repository.open(descriptor),
  };
  return imageOf(blobs, start.descriptor);
}

class Repository {
  readonly #base: string;
  readonly #name: string;
  readonly #reference: RegistryReference;
  #authorization: string | undefined;

  constructor(reference: RegistryReference) {
    const { registry, repository } = reference;
    const host = registry === 'docker.io' ? 'registry-1.docker.io' : registry;
    this.#base = `${isLoopback(host) ? 'http' : 'https'}://${host}/v2/${repository}`;
    this.#name = `${registry}/${repository}`;
    this.#reference = reference;
  }

  async manifest(which: string): Promise<{ descriptor: Descriptor; data: Buffer }> {
    const response = await this.#get(`/manifests/${which}`, { accept: MANIFEST_TYPES.join(', ') });
    const data = await readAll(bodyOf(response), MAX_DOCUMENT);
    return { descriptor: { digest: digestOfBytes(data), size: data.length }, data };
  }

  /** A blob, or the manifest that an index leads to: what it is, its media type says. */
  async open({ digest, mediaType }: Descriptor): Promise<Readable> {
    const isManifest = (MANIFEST_TYPES as readonly string[]).includes(mediaType ?? '');
    const headers = isManifest ? { accept: MANIFEST_TYPES.join(', ') } : {};
    return bodyOf(await this.#get(`/${isManifest ? 'manifests' : 'blobs'}/${digest}`, headers));
  }

  async #get(path: string, headers: Record<string, string>): Promise<Response> {
    for (let attempt = 1; ; attempt += 1) {
      const authorization = this.#authorization === undefined ? {} : { authorization: this.#authorization };
      const response = await this.#fetch(`${this.#base}${path}`, { ...headers, ...authorization });
      if (response.ok) return response;
      await response.body?.cancel();
      if (response.status === 401 && attempt === 1) {
        this.#authorization = await this.#authorize(response.headers.get('www-authenticate') ?? '');
        continue;
      }
      throw unavailable(this.#name, reasonOf(response.status));
    }
  }

  /** Docker's "Token Authentication": the challenge says where a token is to be had and what for. */
  async #authorize(challenge: string): Promise<string> {
    const credentials = await loginOf(this.#reference.registry);
    if (/^basic\b/i.test(challenge) && credentials !== undefined) return `Basic ${credentials}`;
    const parameters = new Map(
      [...challenge.matchAll(/([a-z]+)="([^"]*)"/gi)].map(([, key = '', value = '']) => [key, value]),
    );
    const realm = URL.parse(parameters.get('realm') ?? '');
    if (!/^bearer\b/i.test(challenge) || realm === null) throw unavailable(this.#name, reasonOf(401));
    if (realm.protocol !== 'https:' && !isLoopback(realm.host)) {
      throw unavailable(this.#name, 'the registry asks for a login over an open connection');
    }
    const service = parameters.get('service');
    if (service !== undefined) realm.searchParams.set('service', service);
    realm.searchParams.set('scope', `repository:${this.#reference.repository}:pull`);
    const response = await this.#fetch(
      realm.href,
      credentials === undefined ? {} : { authorization: `Basic ${credentials}` },
    );
    if (!response.ok) throw unavailable(this.#name, reasonOf(response.status));
    const text = (await readAll(bodyOf(response), MAX_DOCUMENT)).toString();
    const { token, access_token } = parseToken(text);
    const bearer = token ?? access_token;
    if (bearer === undefined) throw unavailable(this.#name, 'its registry gives no token');
    return `Bearer ${bearer}`;
  }

  /** `fetch` drops the authorization when a redirect leads to another origin (Fetch standard, HTTP-redirect fetch). */
  async #fetch(url: string, headers: Record<string, string>): Promise<Response> {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), HEADERS_MS);
    try {
      return await fetch(url, { headers, signal: controller.signal });
    } catch (cause) {
      const why = cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : String(cause);
      throw unavailable(this.#name, `its registry cannot be reached (${why})`);
    } finally {
      clearTimeout(timer);
    }
  }
}

function bodyOf(response: Response): Readable {
  const body = Readable.fromWeb((response.body ?? new Blob([]).stream()) as Parameters<typeof Readable.fromWeb>[0]);
  const fail = () => body.destroy(new MachineError('image-unavailable', 'the registry stopped sending; try again'));
  let timer = setTimeout(fail, SILENCE_MS);
  body.on('data', () => {
    clearTimeout(timer);
    timer = setTimeout(fail, SILENCE_MS);
  });
  body.pause();
  body.once('close', () => clearTimeout(timer));
  return body;
}

function parseToken(text: string): { token?: string; access_token?: string } {
  try {
    return JSON.parse(text) as { token?: string; access_token?: string };
  } catch {
    return {};
  }
}

/** What `docker login` keeps for a registry: user and password in base64. */
async function loginOf(registry: string): Promise<string | undefined> {
  const folder = process.env.DOCKER_CONFIG ?? join(homedir(), '.docker');
  const key = registry === 'docker.io' ? 'https://index.docker.io/v1/' : registry;
  try {
    const text = await readFile(join(folder, 'config.json'), 'utf8');
    const { auths } = JSON.parse(text) as { auths?: Record<string, { auth?: string }> };
    return auths?.[key]?.auth || undefined;
  } catch {
    // Nobody logged in here.
    return undefined;
  }
}

const isLoopback = (host: string): boolean => /^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/.test(host);

function reasonOf(status: number): string {
  if (status === 401 || status === 403) return 'its registry wants a login ("docker login"), or there is no such image';
  if (status === 404) return 'its registry has no such image';
  if (status === 429) return 'its registry limits how often it is asked; try later, or log in ("docker login")';
  return `its registry answers ${status}`;
}

function unavailable(name: string, why: string): MachineError {
  return new MachineError('image-unavailable', `the image ${name} cannot be had: ${why}`);
}
