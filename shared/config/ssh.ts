/** Owns `ssh` of the configuration: who may come to machines by SSH, and where. docs/shell.md explains it. */
import { z } from 'zod';

/** Globs over servers' names, `!` takes away. */
const servers = z
  .array(z.string().regex(/^!?[A-Za-z0-9._*-]{1,128}$/, 'write a server or a glob such as "staging-*"'))
  .min(1)
  .max(500);

const key = z
  .string()
  .max(16_384)
  .regex(
    /^(?:ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]+(?: [^\n]*)?$/,
    'write a public key as in ~/.ssh/id_ed25519.pub: "ssh-ed25519 AAAA… name"',
  );

const team = z.strictObject({
  /** Servers whose machines these keys may enter. */
  servers,
  keys: z.array(key).min(1).max(1_000),
});

export const ssh = z.strictObject({
  /** Absent: by `moorage ssh-proxy` alone, over the control socket. */
  listen: z
    .string()
    .regex(/^(?:127\.0\.0\.1|\[::1\]):[0-9]{1,5}$/, 'only loopback is listened at: write "127.0.0.1:PORT"')
    .refine((text) => Number(text.slice(text.lastIndexOf(':') + 1)) <= 65_535, 'a port is at most 65535')
    .optional(),
  /** File of keys in the format of OpenSSH, relative to the configuration. Default: `authorized_keys` in the state folder. */
  authorizedKeys: z.string().min(1).optional(),
  teams: z.record(z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, 'name a team with letters and digits'), team).default({}),
});

export type SshConfig = z.infer<typeof ssh>;
