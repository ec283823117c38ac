import { expect, test } from 'vitest';
import { parseOciReference } from '../../shared/config/oci-reference.ts';

const digest = `sha256:${'a1'.repeat(32)}` as const;

test.each([
  ['alpine', 'docker.io', 'library/alpine', 'latest'],
  ['mcp/time', 'docker.io', 'mcp/time', 'latest'],
  ['ghcr.io/github/github-mcp-server:v1', 'ghcr.io', 'github/github-mcp-server', 'v1'],
  ['localhost:5000/x', 'localhost:5000', 'x', 'latest'],
  ['localhost/x:1', 'localhost', 'x', '1'],
  ['[::1]:5000/a/b:c', '[::1]:5000', 'a/b', 'c'],
  ['registry.example.com/a__b/c-d.e', 'registry.example.com', 'a__b/c-d.e', 'latest'],
])('oci:%s', (name, registry, repository, tag) => {
  expect(parseOciReference(`oci:${name}`)).toEqual({ kind: 'registry', registry, repository, tag });
  const pinned = { kind: 'registry', registry, repository, tag, digest };
  expect(parseOciReference(`oci:${name}@${digest}`)).toEqual(pinned);
});

test.each(['./image.tar', '../layout', '/srv/images/a b.tar', '.'])('oci:%s is a path', (path) => {
  expect(parseOciReference(`oci:${path}`)).toEqual({ kind: 'path', path });
  expect(parseOciReference(`oci:${path}@${digest}`)).toEqual({ kind: 'path', path, digest });
});

test.each(['oci:', 'oci:A/B', 'alpine', 'oci:x@sha256:12', 'oci:x:1:2', 'oci:a/../b', 'oci:ex ample.com/x', 'oci:x/'])(
  '%s is none',
  (text) => expect(parseOciReference(text)).toBeUndefined(),
);
