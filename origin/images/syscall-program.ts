/**
 * The helper that makes system calls for the guest's agent (`guest/syscalls.ts`), as a static x86-64 program without a
 * library: written here byte by byte, because neither host nor guest need have a compiler, and the alternatives (Perl,
 * Python) are larger than all of the guest's userland.
 *
 * One segment at 0x400000, readable, writable and executable; the frame lies behind the code at FRAME_ADDRESS.
 */
import { FRAME_ADDRESS } from '../guest/syscalls.ts';

const BASE = 0x400000;
const HEADERS = 64 + 56;
const SEGMENT_BYTES = 0x2000;

const CODE = `
  41bc00104000    mov  $FRAME_ADDRESS,%r12d
  4531ed          next: xor %r13d,%r13d
  31ff            more: xor %edi,%edi
  4b8d342c        lea  (%r12,%r13),%rsi
  ba00010000      mov  $256,%edx
  4429ea          sub  %r13d,%edx
  31c0            xor  %eax,%eax
  0f05            syscall                     # read what is missing of the frame
  85c0            test %eax,%eax
  7e4a            jle  leave
  4101c5          add  %eax,%r13d
  4181fd00010000  cmp  $256,%r13d
  72de            jb   more
  498b0424        mov  (%r12),%rax
  498b7c2408      mov  8(%r12),%rdi
  498b742410      mov  16(%r12),%rsi
  498b542418      mov  24(%r12),%rdx
  4d8b542420      mov  32(%r12),%r10
  4d8b442428      mov  40(%r12),%r8
  4d8b4c2430      mov  48(%r12),%r9
  0f05            syscall                     # what was asked for
  49890424        mov  %rax,(%r12)
  bf01000000      mov  $1,%edi
  4c89e6          mov  %r12,%rsi
  ba00010000      mov  $256,%edx
  b801000000      mov  $1,%eax
  0f05            syscall                     # write the frame back
  eb9d            jmp  next
  b83c000000      leave: mov $60,%eax
  31ff            xor  %edi,%edi
  0f05            syscall                     # exit(0)
`;

/** The program as an ELF file (System V ABI, "Object Files"). */
export function syscallProgram(): Buffer {
  const code = Buffer.from(
    CODE.trim()
      .split('\n')
      .map((line) => line.trim().split(' ')[0])
      .join(''),
    'hex',
  );
  if (code.readUInt32LE(2) !== FRAME_ADDRESS) throw new TypeError('The program and its client disagree.');
  const file = Buffer.alloc(HEADERS + code.length);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  file.writeUInt16LE(2, 16); // an executable
  file.writeUInt16LE(62, 18); // x86-64
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(BigInt(BASE + HEADERS), 24); // entry
  file.writeBigUInt64LE(64n, 32); // program headers
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  file.writeUInt32LE(1, 64); // a segment to load
  file.writeUInt32LE(7, 68); // readable, writable, executable
  file.writeBigUInt64LE(BigInt(BASE), 64 + 16);
  file.writeBigUInt64LE(BigInt(BASE), 64 + 24);
  file.writeBigUInt64LE(BigInt(file.length), 64 + 32);
  file.writeBigUInt64LE(BigInt(SEGMENT_BYTES), 64 + 40);
  file.writeBigUInt64LE(0x1000n, 64 + 48);
  file.set(code, HEADERS);
  return file;
}
