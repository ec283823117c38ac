import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Entry, LayerTree } from '../../origin/images/oci/tree.ts';

const root = { mode: 0o644, uid: 0, gid: 0 };
const file = (content: string) => ({ type: 'file', content, ...root }) as const;
const folder = { type: 'folder', ...root, mode: 0o755 } as const;
const link = (target: string) => ({ type: 'link', target, ...root }) as const;

type Step = [path: string, what: ReturnType<typeof file> | typeof folder | ReturnType<typeof link>];

function treeOf(...layers: Step[][]): LayerTree {
  const tree = new LayerTree();
  for (const layer of layers) {
    tree.nextLayer();
    for (const [path, inode] of layer) tree.add(path, inode);
  }
  return tree;
}

function paths({ root: top }: LayerTree): string[] {
  const list: string[] = [];
  const visit = (entry: Entry, path: string) => {
    for (const [name, child] of entry.children) {
      const { inode } = child;
      const what = inode.type === 'file' ? `=${inode.content}` : inode.type === 'link' ? `->${inode.target}` : '/';
      list.push(`${path}${name}${what}`);
      visit(child, `${path}${name}/`);
    }
  };
  visit(top, '');
  return list.sort();
}

const rules: [rule: string, layers: Step[][], result: string[]][] = [
  ['later layers replace', [[['a', file('1')]], [['a', file('2')]]], ['a=2']],
  ['folders merge', [[['d/a', file('1')]], [['d/', folder]], [['./d/b', file('2')]]], ['d/', 'd/a=1', 'd/b=2']],
  [
    'a whiteout removes',
    [
      [
        ['d/a', file('1')],
        ['d/b', file('2')],
      ],
      [['d/.wh.a', file('')]],
    ],
    ['d/', 'd/b=2'],
  ],
  ['… a whole folder', [[['d/e/a', file('1')]], [['d/.wh.e', file('')]]], ['d/']],
  [
    '… but nothing of its own layer',
    [
      [['d/a', file('1')]],
      [
        ['d/a', file('2')],
        ['d/.wh.a', file('')],
      ],
    ],
    ['d/', 'd/a=2'],
  ],
  [
    '… nor what lies in it there',
    [
      [['d/a', file('1')]],
      [
        ['d/b', file('2')],
        ['.wh.d', file('')],
      ],
    ],
    ['d/', 'd/b=2'],
  ],
  [
    'opaque hides what was below',
    [
      [
        ['d/a', file('1')],
        ['d/e/b', file('2')],
      ],
      [
        ['d/c', file('3')],
        ['d/.wh..wh..opq', file('')],
      ],
    ],
    ['d/', 'd/c=3'],
  ],
  ['a file in place of a folder', [[['d/a', file('1')]], [['d', file('2')]]], ['d=2']],
  [
    'a folder in place of a link',
    [
      [['d', link('/etc')]],
      [
        ['d/', folder],
        ['d/a', file('1')],
      ],
    ],
    ['d/', 'd/a=1'],
  ],
  [
    'a parent that is a link is followed inside',
    [
      [
        ['usr/bin/', folder],
        ['bin', link('usr/bin')],
      ],
      [['bin/a', file('1')]],
    ],
    ['bin->usr/bin', 'usr/', 'usr/bin/', 'usr/bin/a=1'],
  ],
  [
    '… and never out',
    [
      [
        ['out', link('../../../../tmp')],
        ['out/a', file('1')],
      ],
    ],
    ['out->../../../../tmp', 'tmp/', 'tmp/a=1'],
  ],
  [
    'an absolute link is meant within',
    [
      [
        ['out', link('/etc')],
        ['out/passwd', file('1')],
      ],
    ],
    ['etc/', 'etc/passwd=1', 'out->/etc'],
  ],
  ['bookkeeping of aufs is left out', [[['.wh..wh.plnk', file('1')]]], []],
];

test.each(rules)('%s', (_rule, layers, result) => expect(paths(treeOf(...layers))).toEqual(result));

test.each([
  ['../a', /leaves the image/],
  ['a/../../b', /leaves the image/],
  ['a\0b', /leaves the image/],
  [`a/${'x'.repeat(256)}`, /too long/],
  ['d/'.repeat(300), /too deep/],
  ['loop/a', /links without end/],
  ['file/a', /lies in no folder/],
])('%.40j is refused', (path, says) => {
  const tree = treeOf([
    ['loop', link('loop')],
    ['file', file('1')],
  ]);
  expect(() => tree.add(path, file('x'))).toThrow(says);
});

test('hard links are two names of one file, of files alone', () => {
  const tree = treeOf([
    ['d/a', file('1')],
    ['l', link('d')],
  ]);
  tree.addHardLink('b', '/l/a');
  expect(tree.find('b')?.inode).toBe(tree.find('d/a')?.inode);
  for (const target of ['d', 'none', '../a']) expect(() => tree.addHardLink('c', target)).toThrow(/damaged or hostile/);
});

test('whatever layers say, every name is one plain component and every parent a folder', () => {
  const name = fc.constantFrom('a', 'b', 'c', '..', '.', '', '.wh.a', '.wh..wh..opq', '.wh.b');
  const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));
  const inode = fc.oneof(
    fc.constant(file('x')),
    fc.constant(folder),
    path.map(link),
    path.map((p) => link(`/${p}`)),
  );
  const step = fc.oneof(fc.tuple(path, inode), fc.constant('next' as const), fc.record({ from: path, to: path }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const tree = new LayerTree();
      tree.nextLayer();
      for (const one of steps) {
        try {
          if (one === 'next') tree.nextLayer();
          else if (Array.isArray(one)) tree.add(one[0], one[1]);
          else tree.addHardLink(one.from, one.to);
        } catch (error) {
          expect(String(error)).toMatch(/damaged or hostile/);
        }
      }
      const visit = (entry: Entry) => {
        if (entry.inode.type !== 'folder') expect(entry.children.size).toBe(0);
        for (const [child, inner] of entry.children) {
          expect(child).toMatch(/^(?!\.{0,2}$)[^/]+$/);
          visit(inner);
        }
      };
      visit(tree.root);
    }),
  );
});
