/**
 * The little of DNS that a machine needs (RFC 1035): one question of a program, and the answer that our own resolver gives.
 * Pure. Nothing is ever passed on: what the resolver does not know does not exist.
 */

const HEADER_BYTES = 12;
const TYPE_A = 1;
const TYPE_ANY = 255;
const CLASS_IN = 1;
/** Seconds. Programs ask again soon enough when the addresses are given out anew. */
const TTL = 60;

/** Of RFC 1035, 4.1.1. */
const RCODE = { ok: 0, failure: 2, unknownName: 3 } as const;

export interface Question {
  readonly id: number;
  /** Lower case, without a final dot. */
  readonly name: string;
  /** Whether an IPv4 address answers it. */
  readonly wantsAddress: boolean;
  /** What must be repeated in the answer. */
  readonly raw: Buffer;
  readonly recursion: boolean;
}

/** What a program asked; undefined for what is no query of ours to answer (a response, rubbish, several questions). */
export function parseQuestion(packet: Buffer): Question | undefined {
  if (packet.length < HEADER_BYTES) return undefined;
  const flags = packet.readUInt16BE(2);
  // QR 0 and opcode 0: a standard query, with exactly one question.
  if ((flags & 0xf800) !== 0 || packet.readUInt16BE(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = HEADER_BYTES;
  for (;;) {
    const length = packet[at];
    // Pointers make no sense in a first name.
    if (length === undefined || length > 63) return undefined;
    at += 1;
    if (length === 0) break;
    if (at + length > packet.length) return undefined;
    labels.push(packet.toString('latin1', at, at + length));
    at += length;
  }
  if (at + 4 > packet.length || at - HEADER_BYTES > 255) return undefined;
  const type = packet.readUInt16BE(at);
  const isInternet = packet.readUInt16BE(at + 2) === CLASS_IN;
  return {
    id: packet.readUInt16BE(0),
    name: labels.join('.').toLowerCase(),
    wantsAddress: isInternet && (type === TYPE_A || type === TYPE_ANY),
    raw: packet.subarray(HEADER_BYTES, at + 4),
    recursion: (flags & 0x0100) !== 0,
  };
}

/** What becomes of a question: an address, a name that is known and has nothing of the kind, no such name, or a fault. */
export type Answer = { readonly address: string } | 'nothing' | 'unknown-name' | 'failure';

export function encodeAnswer(question: Question, answer: Answer): Buffer {
  const address = typeof answer === 'object' ? Buffer.from(answer.address.split('.').map(Number)) : undefined;
  const rcode = answer === 'unknown-name' ? RCODE.unknownName : answer === 'failure' ? RCODE.failure : RCODE.ok;
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(question.id, 0);
  // QR, AA and RA; RD as it came.
  header.writeUInt16BE(0x8480 | (question.recursion ? 0x0100 : 0) | rcode, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(address ? 1 : 0, 6);
  if (!address) return Buffer.concat([header, question.raw]);
  const record = Buffer.alloc(12);
  record.writeUInt16BE(0xc000 | HEADER_BYTES, 0);
  record.writeUInt16BE(TYPE_A, 2);
  record.writeUInt16BE(CLASS_IN, 4);
  record.writeUInt32BE(TTL, 6);
  record.writeUInt16BE(4, 10);
  return Buffer.concat([header, question.raw, record, address]);
}
