/** Container images made on the spot: layers as archives, and the three forms in which they travel. */
import { createHash } from 'node:crypto';
import { createWriteStream, mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type Header, pack } from 'tar-stream';

export type Member = Partial<Header> & { name: string; content?: string | Buffer };

export const sha256 = (data: string | Buffer): string => `sha256:${createHash('sha256').update(data).digest('hex')}`;

export async function tarOf(members: readonly Member[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...header } of members) {
    if (content === undefined) archive.entry({ type: 'directory', ...header } as Header);
    else archive.entry(header as Header, content as string);
  }
  archive.finalize();
  return buffer(archive);
}

/** As "zstd:chunked": a frame for each piece, and one that says where they are, to be skipped (RFC 8878, 3.1.2). */
function zstdChunked(data: Buffer): Buffer {
  const pieces: Buffer[] = [];
  for (let at = 0; at < data.length; at += 700) pieces.push(zstdCompressSync(data.subarray(at, at + 700)));
  return Buffer.concat([...pieces, Buffer.from('502a4d1805000000', 'hex'), Buffer.from('where')]);
}

const PACKERS = { plain: (data: Buffer) => data, gzip: gzipSync, zstd: zstdCompressSync, zstdChunked } as const;

export interface ImageOptions {
  layers: readonly { members: readonly Member[]; packed?: keyof typeof PACKERS }[];
  config?: object;
  platform?: { os?: string; architecture?: string };
}

/** An image as blobs by digest, and what names them. */
export interface TestImage {
  blobs: Map<string, Buffer>;
  manifest: string;
  configuration: string;
  layers: readonly { digest: string; archive: Buffer }[];
}

export async function makeImage({ layers, config = {}, platform = {} }: ImageOptions): Promise<TestImage> {
  const blobs = new Map<string, Buffer>();
  const put = (data: string | Buffer) => {
    const digest = sha256(data);
    blobs.set(digest, Buffer.from(data));
    return { digest, size: Buffer.byteLength(data) };
  };
  const archives = await Promise.all(layers.map(({ members }) => tarOf(members)));
  const packed = archives.map((archive, index) => put(PACKERS[layers[index]?.packed ?? 'gzip'](archive)));
  const { os = 'linux', architecture = 'amd64' } = platform;
  const rootfs = { type: 'layers', diff_ids: archives.map(sha256) };
  const configuration = put(JSON.stringify({ os, architecture, config, rootfs }));
  const manifest = put(JSON.stringify({ schemaVersion: 2, config: configuration, layers: packed }));
  return {
    blobs,
    manifest: manifest.digest,
    configuration: configuration.digest,
    layers: archives.map((archive, index) => ({ archive, digest: packed[index]?.digest ?? '' })),
  };
}

/** Files of an OCI layout. With `index` the image lies behind an index of platforms. */
export function layoutOf(image: TestImage, index = false): Map<string, string | Buffer> {
  const files = new Map<string, string | Buffer>([['oci-layout', '{"imageLayoutVersion":"1.0.0"}']]);
  for (const [digest, data] of image.blobs) files.set(`blobs/sha256/${digest.slice(7)}`, data);
  let top = { digest: image.manifest, size: image.blobs.get(image.manifest)?.length ?? 0 };
  if (index) {
    const platform = { os: 'linux', architecture: 'amd64' };
    const other = { digest: sha256('other'), size: 5, platform: { os: 'linux', architecture: 'arm64' } };
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const text = JSON.stringify({ schemaVersion: 2, manifests: [other, { ...top, mediaType, platform }] });
    top = { digest: sha256(text), size: text.length };
    files.set(`blobs/sha256/${top.digest.slice(7)}`, text);
    image.blobs.set(top.digest, Buffer.from(text));
  }
  files.set('index.json', JSON.stringify({ schemaVersion: 2, manifests: [top] }));
  return files;
}

/** Members of what `docker save` wrote before version 25: the second layer is a link where it is the first one again. */
export function savedOf(image: TestImage): Member[] {
  const name = `${image.configuration.slice(7)}.json`;
  const paths = image.layers.map((_, index) => `layer${index}/layer.tar`);
  return [
    ...image.layers.map(({ archive }, index) => ({ name: `layer${index}/real.tar`, content: archive })),
    ...paths.map((path) => ({ name: path, type: 'symlink' as const, linkname: 'real.tar', content: '' })),
    { name, content: image.blobs.get(image.configuration) ?? '' },
    { name: 'manifest.json', content: JSON.stringify([{ Config: name, RepoTags: ['test:1'], Layers: paths }]) },
  ];
}

export function writeFiles(folder: string, files: ReadonlyMap<string, string | Buffer>): void {
  for (const [name, content] of files) {
    mkdirSync(join(folder, name, '..'), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
}

export async function writeTar(path: string, members: readonly Member[]): Promise<void> {
  await pipeline([await tarOf(members)], createWriteStream(path));
}

export const membersOf = (files: ReadonlyMap<string, string | Buffer>): Member[] =>
  [...files].map(([name, content]) => ({ name, content }));

export interface TestRegistry {
  readonly host: string;
  /** What was asked for, in order. */
  readonly asked: string[];
  close(): Promise<void>;
}

/** A registry on loopback with one repository, `team/server`, whose tag `1` is the image; it wants a token. */
export async function serveRegistry(image: TestImage, tag: string): Promise<TestRegistry> {
  const asked: string[] = [];
  const token = 'pull-token';
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', 'http://registry');
    asked.push(url.pathname);
    const send = (status: number, body: string | Buffer, headers: Record<string, string> = {}) =>
      response.writeHead(status, headers).end(body);
    if (url.pathname === '/token') {
      const right = url.searchParams.get('scope') === 'repository:team/server:pull';
      send(right ? 200 : 400, JSON.stringify({ token }));
    } else if (url.pathname.startsWith('/cdn/')) {
      // Blobs lie elsewhere, and the token is nobody's business there.
      const data = request.headers.authorization === undefined ? image.blobs.get(url.pathname.slice(5)) : undefined;
      send(data ? 200 : 403, data ?? '');
    } else if (request.headers.authorization !== `Bearer ${token}`) {
      const realm = `http://${request.headers.host}/token`;
      send(401, '', { 'www-authenticate': `Bearer realm="${realm}",service="registry",scope="wrong"` });
    } else {
      const match = /^\/v2\/team\/server\/(manifests|blobs)\/(.+)$/.exec(url.pathname);
      const digest = match?.[2] === tag ? image.manifest : (match?.[2] ?? '');
      const data = image.blobs.get(digest);
      if (!data) send(404, '{}');
      else if (match?.[1] === 'manifests') send(200, data);
      else response.writeHead(307, { location: `http://localhost:${port()}/cdn/${digest}` }).end();
    }
  };
  const server: Server = createServer(answer);
  const port = () => (server.address() as AddressInfo).port;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${port()}`,
    asked,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
