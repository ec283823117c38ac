/** Owns the table of commands: name, one line for `moorage help`, and where its module is. A command loads its own alone. */
import type { Command } from './command.ts';

export interface Entry {
  /** What it is called with, and what it does, as `moorage help` shows it. */
  readonly call: string;
  readonly summary: string;
  load(): Promise<{ readonly command: Command }>;
}

export const COMMANDS: Readonly<Record<string, Entry>> = {
  up: {
    call: 'up',
    summary: 'serve the configured servers on this machine (what "npm start" does)',
    load: () => import('./up.ts'),
  },
  fork: {
    call: 'fork <server> --as <name>',
    summary: 'copy a live machine and serve the copy under another name',
    load: () => import('./fork.ts'),
  },
  stdio: {
    call: 'stdio <server>',
    summary: 'serve one of them to a local MCP client, over stdin and stdout',
    load: () => import('./stdio/stdio.ts'),
  },
  doctor: {
    call: 'doctor',
    summary: 'say what this host offers to the configuration, and what to do about the rest',
    load: () => import('./doctor.ts'),
  },
  shell: {
    call: 'shell <server>',
    summary: 'open a terminal in the machine of a server',
    load: () => import('./shell.ts'),
  },
  exec: {
    call: 'exec <server>',
    summary: 'run a command in the machine of a server',
    load: () => import('./exec.ts'),
  },
  cp: {
    call: 'cp <from> <to>',
    summary: 'copy files out of the machine of a server (<server>:<path>), or into it',
    load: () => import('./cp.ts'),
  },
  'ssh-proxy': {
    call: 'ssh-proxy',
    summary: 'carry SSH to the router that runs here (ProxyCommand of ssh)',
    load: () => import('./ssh-proxy.ts'),
  },
  login: {
    call: 'login <action>',
    summary: 'log people in with their browser: one-time codes, and the logins that clients have',
    load: () => import('./login.ts'),
  },
  origin: {
    call: 'origin <action>',
    summary: 'other machines as origins of an edge: invite, list, revoke; join, run, rotate, status',
    load: () => import('./origin.ts'),
  },
  keys: {
    call: 'keys rotate',
    summary: "change the edge's key without losing its origins",
    load: () => import('./keys.ts'),
  },
  logs: {
    call: 'logs <server>',
    summary: 'show, search or follow what a server wrote to stderr',
    load: () => import('./logs.ts'),
  },
  hold: {
    call: 'hold <server>',
    summary: 'keep a machine awake for a time though nobody calls it',
    load: () => import('./hold.ts'),
  },
  machines: {
    call: 'machines',
    summary: 'list the machines of the router that runs here, with their states',
    load: () => import('./machines.ts'),
  },
  images: {
    call: 'images',
    summary: 'list the images that machines are made of; "images prune" removes what nobody uses',
    load: () => import('./images.ts'),
  },
  policy: {
    call: 'policy explain',
    summary: 'say whether a caller may use a tool, and which rule of "access" decides it',
    load: () => import('./policy.ts'),
  },
  tools: {
    call: 'tools diff|accept <server>',
    summary: "show which of a server's tools are not as they were accepted, and accept them",
    load: () => import('./tools.ts'),
  },
  token: {
    call: 'token create|list|revoke',
    summary: 'make, list and revoke bearer tokens of the edge',
    load: () => import('./token.ts'),
  },
  secret: {
    call: 'secret set|rm|list|rotate',
    summary: 'keep values that servers need out of the configuration',
    load: () => import('./secret.ts'),
  },
  audit: {
    call: 'audit',
    summary: 'show what was denied, who logged in, and what was administered at the edge',
    load: () => import('./audit.ts'),
  },
};
