/** Owns the way to SSH over the control socket: the bytes of one connection as a WebSocket. */
import { createWebSocketStream } from 'ws';
import type { RunningSsh } from '../shell/ssh-server.ts';
import type { ControlSocket } from './control.ts';

export function sshSocket(ssh: RunningSsh): ControlSocket {
  return (socket) => ssh.accept(createWebSocketStream(socket));
}
