/** Owns `moorage ssh-proxy`: the agent's SSH over its control socket, for `ProxyCommand` of ssh_config(5). */
import { pipeline } from 'node:stream/promises';
import { createWebSocketStream } from 'ws';
import { SSH_PATH } from '../origin/shell/protocol.ts';
import type { Command } from './command.ts';
import { controlOf } from './control.ts';
import { UsageError } from './usage.ts';

export const command: Command = {
  usage: `ssh-proxy

Carries SSH to the router that runs here over its socket, with no port. In ~/.ssh/config:
  Host *.moorage
    HostKeyAlias moorage
    ProxyCommand <how moorage is called here> ssh-proxy --state /path/to/.moorage
and then: ssh notes@host.moorage. The configuration needs an "ssh" block.
`,
  options: {},
  run: async (input) => {
    if (input.positionals.length > 0) throw new UsageError('The server is named by ssh: ssh <server>@….');
    const socket = await controlOf(input).stream(SSH_PATH);
    const stream = createWebSocketStream(socket);
    socket.resume();
    // Either end closes both.
    await Promise.race([pipeline(process.stdin, stream), pipeline(stream, process.stdout)]).catch(() => undefined);
    stream.destroy();
    process.stdin.destroy();
    return 0;
  },
};
