/** The servers of runtime "edge", bundled into the Worker. The module is generated from the configuration. */
declare module 'moorage:edge-servers' {
  import type { EdgeServerFactory } from './edge-servers/instance.ts';

  /** By name of the server. */
  export const edgeServers: Readonly<Record<string, EdgeServerFactory>>;
}
