/** The way in by SSH, with plain processes in the place of machines: who is let in, what is given, what is refused. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import ssh2 from 'ssh2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { processMachine } from '../../origin/process/driver.ts';
import { keysOfTeams } from '../../origin/shell/authorized-keys.ts';
import { makeKeyPair } from '../../origin/shell/host-key.ts';
import { type RunningSsh, startSsh } from '../../origin/shell/ssh-server.ts';
import type { Wish } from '../../origin/shell/visits.ts';
import { MoorageError } from '../../shared/errors.ts';

const dir = mkdtempSync(join(tmpdir(), 'moorage-ssh-'));
const keyPair = (comment: string) => makeKeyPair(comment);
const [host, owner, member, stranger] = [keyPair('host'), keyPair('owner'), keyPair('member'), keyPair('stranger')];
const keysPath = join(dir, 'authorized_keys');
const machine = processMachine();
const lines: string[] = [];
const note = (line: string) => void lines.push(line);
const log = { debug: note, info: note, warn: note, error: note, server: note, machine: note };
let left = 0;
let ssh: RunningSsh;

beforeAll(async () => {
  writeFileSync(keysPath, `${owner.public}\n`, { mode: 0o600 });
  const visits = {
    has: (server: string) => ['notes', 'staging-1', 'broken'].includes(server),
    begin: async (server: string, { argv = ['sh'], env }: Wish) => {
      if (server === 'broken') throw new MoorageError('machine_failed', 'It does not boot.');
      const process = await machine.spawn({ argv, env: { ...env }, cwd: dir });
      const leave = () => {
        process.kill('SIGHUP');
        left += 1;
      };
      return { process, leave };
    },
  };
  const teams = keysOfTeams({ ops: { servers: ['staging-*'], keys: [member.public] } });
  const listen = { host: '127.0.0.1', port: 0 };
  ssh = await startSsh({ listen, hostKey: host.private, authorizedKeysPath: keysPath, teams, visits, log });
});
afterAll(async () => {
  await ssh.close();
  await machine.stop();
  rmSync(dir, { recursive: true });
});

function enter(username: string, privateKey: string, more: object = {}): Promise<ssh2.Client> {
  return new Promise((resolve, reject) => {
    const client = new ssh2.Client();
    client.once('ready', () => resolve(client));
    client.on('error', reject);
    client.once('close', () => reject(new Error('closed')));
    client.connect({ host: '127.0.0.1', port: ssh.port, username, privateKey, ...more });
  });
}

interface Command {
  readonly channel: ssh2.ClientChannel;
  /** Its exit code, or the name of its signal. */
  readonly ended: Promise<unknown>;
}

function exec(client: ssh2.Client, command: string, options: ssh2.ExecOptions = {}): Promise<Command> {
  return new Promise((resolve, reject) => {
    client.exec(command, options, (error, channel) => {
      if (error) {
        reject(error);
        return;
      }
      // At once: the end may come with the beginning.
      const ended = new Promise((tell) => channel.once('exit', (...[code, signal]: unknown[]) => tell(code ?? signal)));
      resolve({ channel, ended });
    });
  });
}

describe('who is let in', () => {
  test('a key of the file to all servers, one of a team to those of its team', async () => {
    for (const [name, key] of [
      ['notes', owner],
      ['staging-1', owner],
      ['staging-1', member],
    ] as const) {
      (await enter(name, key.private)).end();
    }
    expect(lines.filter((line) => line.includes('entered'))).toEqual([
      expect.stringMatching(/^ssh: owner \(SHA256:.*\) entered "notes"$/),
      expect.stringMatching(/^ssh: owner .* entered "staging-1"$/),
      expect.stringMatching(/^ssh: team ops \(SHA256:.*\) entered "staging-1"$/),
    ]);
  });

  test('a server that is not there, one that is not the key’s, and a key that nobody knows are refused alike', async () => {
    const refusals = await Promise.all(
      [
        enter('nothing', owner.private),
        enter('notes', member.private),
        enter('notes', stranger.private),
        enter('nothing', stranger.private),
      ].map((attempt) => attempt.then(String, String)),
    );
    expect(new Set(refusals).size).toBe(1);
    expect(refusals[0]).toContain('authentication methods failed');
  });

  test('no password, and no signature of another key than the one that was shown', async () => {
    await expect(enter('notes', '', { password: 'x', privateKey: undefined })).rejects.toThrow('methods failed');
    const agent = new (class extends ssh2.BaseAgent<Buffer> {
      override getIdentities(done: (error: undefined, keys: Buffer[]) => void) {
        done(undefined, [Buffer.from(owner.public.split(' ')[1] ?? '', 'base64')]);
      }
      override sign(_key: Buffer, data: Buffer, ...rest: unknown[]) {
        const done = rest.at(-1) as (error: undefined, signature: Buffer) => void;
        const forger = ssh2.utils.parseKey(stranger.private) as ssh2.ParsedKey;
        done(undefined, forger.sign(data));
      }
    })();
    await expect(enter('notes', '', { agent, privateKey: undefined })).rejects.toThrow('methods failed');
  });

  test('a key that was taken out of the file, or a file that others may write, lets nobody in', async () => {
    writeFileSync(keysPath, `# ${owner.public}\n`);
    await expect(enter('notes', owner.private)).rejects.toThrow('methods failed');
    rmSync(keysPath);
    await expect(enter('notes', owner.private)).rejects.toThrow('methods failed');
    writeFileSync(keysPath, `${owner.public}\n`, { mode: 0o666 });
    chmodSync(keysPath, 0o666);
    await expect(enter('notes', owner.private)).rejects.toThrow('methods failed');
    expect(lines.at(-1)).not.toContain(dir);
    chmodSync(keysPath, 0o600);
  });

  test('who tries for ever is cut off', async () => {
    let tries = 0;
    const again = (_left: unknown, _partial: unknown, next: (how: object | false) => void) => {
      tries += 1;
      next(tries > 20 ? false : { type: 'publickey', username: 'notes', key: stranger.private });
    };
    await expect(enter('notes', '', { authHandler: again, privateKey: undefined })).rejects.toThrow('closed');
    expect(tries).toBeLessThanOrEqual(8);
  });
});

describe('what is given', () => {
  test('a command with its streams apart, its exit code or its signal', async () => {
    const client = await enter('notes', owner.private);
    const { channel, ended } = await exec(client, 'cat; echo trouble >&2; exit 7');
    channel.end('from here\n');
    expect(await Promise.all([text(channel), text(channel.stderr), ended])).toEqual(['from here\n', 'trouble\n', 7]);
    const killed = await exec(client, 'kill -TERM $$');
    expect(await killed.ended).toBe('SIGTERM');
    client.end();
  });

  test('as many bytes as there are, both ways', async () => {
    const client = await enter('notes', owner.private);
    const { channel } = await exec(client, 'cat');
    const bytes = Buffer.alloc(5_000_000, 'moorage\n');
    channel.end(bytes);
    channel.stderr.resume();
    expect(Buffer.concat(await channel.toArray()).equals(bytes)).toBe(true);
    client.end();
  });

  test('of variables those of a language alone', async () => {
    const client = await enter('notes', owner.private);
    const env = { LC_ALL: 'C.UTF-8', LD_PRELOAD: '/x.so', NODE_OPTIONS: '--require=/x', COLORTERM: 'true$(color)' };
    const { channel } = await exec(client, 'env', { env });
    channel.stderr.resume();
    const shown = await text(channel);
    expect(shown).toContain('LC_ALL=C.UTF-8');
    expect(shown).not.toMatch(/LD_PRELOAD|NODE_OPTIONS|COLORTERM/);
    client.end();
  });

  test('a reason, when the machine does not run', async () => {
    const client = await enter('broken', owner.private);
    const { channel, ended } = await exec(client, 'true');
    channel.resume();
    expect(await Promise.all([text(channel.stderr), ended])).toEqual(['moorage: It does not boot.\r\n', 255]);
    client.end();
  });

  test('nothing that goes elsewhere: no forwarded port, no socket, no agent, no X11', async () => {
    const client = await enter('notes', owner.private);
    type Done = (error?: Error | null) => void;
    const attempts = [
      (done: Done) => client.forwardOut('127.0.0.1', 1, '127.0.0.1', 22, done),
      (done: Done) => client.forwardIn('127.0.0.1', 0, done),
      (done: Done) => client.openssh_forwardOutStreamLocal('/x', done),
      (done: Done) => client.openssh_forwardInStreamLocal('/x', done),
      (done: Done) => client.exec('true', { x11: true }, done),
    ];
    for (const attempt of attempts) {
      expect(await new Promise((resolve) => attempt((error) => resolve(error)))).toBeInstanceOf(Error);
    }
    client.end();
  });

  test('eight sessions of one connection, and everything is left with it', async () => {
    const client = await enter('notes', owner.private);
    for (let session = 0; session < 8; session += 1) await exec(client, 'cat');
    await expect(exec(client, 'cat')).rejects.toThrow('Channel open failure');
    const before = left;
    client.end();
    while (left < before + 8) await new Promise((resolve) => setTimeout(resolve, 5));
  });
});

test('what is no SSH is hung up on, and 64 connections are served at once', async () => {
  const noise = connect(ssh.port, '127.0.0.1');
  noise.on('error', () => undefined);
  noise.write('GET / HTTP/1.1\r\n\r\n'.repeat(200));
  noise.resume();
  await new Promise((resolve) => noise.once('close', resolve));
  const silent = await Promise.all(
    Array.from({ length: 64 }, async () => {
      const socket = connect(ssh.port, '127.0.0.1');
      await new Promise((resolve) => socket.once('data', resolve));
      return socket;
    }),
  );
  const refused = connect(ssh.port, '127.0.0.1');
  refused.on('error', () => undefined);
  refused.resume();
  await new Promise((resolve) => refused.once('close', resolve));
  for (const socket of silent) socket.destroy();
});
