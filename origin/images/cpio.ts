/**
 * Writer of the "newc" cpio format that the kernel accepts as initramfs. Pure and deterministic: entries come out in
 * the order given, owned by root, with time 0. Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
 */

export type CpioEntry =
  | { type: 'folder'; path: string; mode?: number }
  | { type: 'file'; path: string; mode?: number; content: Uint8Array }
  | { type: 'link'; path: string; target: string };

const TRAILER = 'TRAILER!!!';
const TYPE_BITS = { folder: 0o040000, file: 0o100000, link: 0o120000 } as const;

/** The archive as one buffer. Paths are relative, without a leading slash; a parent must come before its children. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  let size = 0;
  const push = (part: Buffer) => {
    parts.push(part);
    size += part.length;
  };
  const align = () => {
    const padding = -size & 3;
    if (padding > 0) push(Buffer.alloc(padding));
  };
  const record = (inode: number, mode: number, links: number, path: string, content: Uint8Array) => {
    const name = Buffer.from(`${path}\0`);
    const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0];
    push(Buffer.from(`070701${fields.map((field) => field.toString(16).toUpperCase().padStart(8, '0')).join('')}`));
    push(name);
    align();
    push(Buffer.from(content));
    align();
  };
  for (const [index, entry] of entries.entries()) {
    if (entry.path.startsWith('/') || entry.path === '')
      throw new RangeError(`cpio path must be relative: ${entry.path}`);
    const permissions = entry.type === 'link' ? 0o777 : (entry.mode ?? (entry.type === 'folder' ? 0o755 : 0o644));
    const content =
      entry.type === 'file' ? entry.content : entry.type === 'link' ? Buffer.from(entry.target) : Buffer.alloc(0);
    record(index + 1, TYPE_BITS[entry.type] | permissions, entry.type === 'folder' ? 2 : 1, entry.path, content);
  }
  record(0, 0, 1, TRAILER, Buffer.alloc(0));
  return Buffer.concat(parts);
}
