import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { candidates, expose, MAX_NAME, readName, UriNames } from '../../edge/aggregate/names.ts';

const serverName = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/);
const toolName = fc.oneof(fc.stringMatching(/^[A-Za-z0-9_./-]{1,128}$/), fc.string({ minLength: 1, maxLength: 80 }));

describe('names of tools and prompts', () => {
  test.each([
    ['everything', 'echo', 'everything__echo'],
    ['a', 'b__c', 'a__b__c'],
    ['a__b', 'c', expect.stringMatching(/^a__b__c_[0-9a-f]{8}$/)],
    ['my.notes', 'read', expect.stringMatching(/^my_notes__read_[0-9a-f]{8}$/)],
    ['notes', 'files/read', expect.stringMatching(/^notes__files_read_[0-9a-f]{8}$/)],
    ['notes', 'x'.repeat(80), expect.stringMatching(/^notes__x{48}_[0-9a-f]{8}$/)],
    ['notes', 'ends_in_deadbeef', expect.stringMatching(/^notes__ends_in_deadbeef_[0-9a-f]{8}$/)],
  ])('%s and %s', async (server, name, exposed) => {
    expect(await expose(server, name)).toEqual(exposed);
  });

  test('every name is one that models take, and an exact one is read back', async () => {
    await fc.assert(
      fc.asyncProperty(serverName, toolName, async (server, name) => {
        const exposed = await expose(server, name);
        expect(exposed).toMatch(/^[A-Za-z0-9_-]+$/);
        expect(exposed.length).toBeLessThanOrEqual(MAX_NAME);
        const read = readName(exposed);
        if (read === 'hashed') expect(candidates(exposed, ['other', server])).toContain(server);
        else expect(read).toEqual({ server, name });
      }),
    );
  });

  test('different tools never have the same exact name', async () => {
    await fc.assert(
      fc.asyncProperty(serverName, toolName, serverName, toolName, async (s1, n1, s2, n2) => {
        fc.pre(s1 !== s2 || n1 !== n2);
        expect(await expose(s1, n1)).not.toBe(await expose(s2, n2));
      }),
    );
  });

  test.each(['', 'echo', '__echo', 'server__'])('%j is nobody’s', (exposed) => {
    expect(readName(exposed)).toBeUndefined();
  });
});

test('resources keep their URI behind their server’s scheme', async () => {
  const names = await UriNames.of(['notes', 'My_Notes', '1st']);
  expect(names.expose('notes', 'file:///a?b+c')).toBe('notes+file:///a?b+c');
  for (const server of ['notes', 'My_Notes', '1st']) {
    const uri = names.expose(server, 'test://x/{id}');
    expect(uri).toMatch(/^[a-z][a-z0-9.+-]*:/);
    expect(names.read(uri)).toEqual({ server, uri: 'test://x/{id}' });
  }
  expect(names.read('file:///a')).toBeUndefined();
  expect(names.read('other+file:///a')).toBeUndefined();
});
